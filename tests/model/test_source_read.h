/* test_source_read.h - looks at everything an open source has to offer, as tests of hostile files
 * and the fuzzers want it. */
#ifndef TEST_SOURCE_READ_H
#define TEST_SOURCE_READ_H

#include <stdint.h>

#include "model/source.h"

/* Reads every key as every type, every tensor's bytes, and the hyper-parameters. Aborts where the
 * source contradicts itself or an error is no sentence; the sum keeps the reads alive. */
uint64_t read_everything(const struct source *s);

/* Aborts unless err holds an error code and one sentence without control characters. */
void check_sentence(const struct err *err);

#endif
