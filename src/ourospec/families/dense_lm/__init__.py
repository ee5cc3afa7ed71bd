"""dense_lm: the honest baseline. A plain pre-norm decoder with rotary positions and SwiGLU."""
