"""[AAK], [Glover]: how close linear models of m states come to a given one, by the singular values of Hankel operators."""
