"""The products: the matrix file, its verification, and Postgres. Refuses to compute neighbours."""
