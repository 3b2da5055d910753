"""Studies on the house: the nano model's recipe and the papers' claims in small."""
