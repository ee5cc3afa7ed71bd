"""adaptive_lm: the Ouro-Spec model. Each token decides in each layer how many passes it needs."""
