/* guard_model.h - a model to measure speed on that needs no file: random Q8_0 numbers in the shapes
 * of Gemma 3 270M, with a vocabulary of 64 Ki (151 MB in all, more than caches hold). */
#ifndef BENCH_GUARD_MODEL_H
#define BENCH_GUARD_MODEL_H

/* A GGUF without a tokenizer in a memory file. The caller closes it; -1 = no memory, errno set. */
int guard_model(void);

#endif
