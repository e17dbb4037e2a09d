/* fake_main.c - gemmad-fake: gemmad serve over fake_engine.c. */
#include "cmd/cmd.h"

int main(int argc, char **argv)
{
    return cmd_serve(argc - 1, argv + 1);
}
