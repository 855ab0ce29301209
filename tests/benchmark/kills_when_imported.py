"""A module as a library built for another processor is: importing it ends the process."""

import os

os.abort()
