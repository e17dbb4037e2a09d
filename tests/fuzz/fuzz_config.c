/* fuzz_config.c - whatever a configuration file holds, reading it ends in a struct or a sentence,
 * and what was read can be written and read again. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gemmad/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c, again;
    struct err err = {0};
    char value[CONFIG_PATH_MAX], second[CONFIG_PATH_MAX];

    config_default(&c);
    if (config_parse(&c, "fuzz", (const char *)data, size, &err) < 0) {
        assert(err.code < 0 && strncmp(err.msg, "fuzz:", 5) == 0);
        return 0;
    }
    config_default(&again);
    for (size_t i = 0; i < config_n_keys(); i++) {
        config_get(&c, i, value, sizeof(value));
        assert(config_set(&again, config_key_at(i).key, value, &err) == 0);
        config_get(&again, i, second, sizeof(second));
        assert(strcmp(value, second) == 0);
    }
    return 0;
}
