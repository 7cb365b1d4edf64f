// What the executor manager tells a worker: lines `key=value` on stdin, ended by an empty line.
// Nothing of it is on the command line, where everybody could read the ticket.
#pragma once

#include <string>

#include "invocation/worker_channel.h"

namespace rfaas::executor {

struct Config {
    invocation::WorkerOptions channel;
    std::string package;
    uint32_t worker = 0;
    uint64_t hot_timeout_us = 1000;
};

// Reads from `fd` up to the empty line; what has come behind it is in `rest`. False: `reason` names
// the key.
[[nodiscard]] bool read_config(int fd, Config* config, std::string* rest, std::string* reason);

}  // namespace rfaas::executor
