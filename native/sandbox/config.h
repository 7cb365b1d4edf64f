// What the executor manager tells the launcher: lines `key=value` on a descriptor of its own, so
// that nothing about a lease is on a command line. They come in two parts, each ended by an empty
// line: the place in which a worker is made, and what it is for. Between the two it may wait for a
// lease to come. The manager has checked what it sends; this is checked again all the same, because
// the launcher runs with the manager's rights.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rfaas::sandbox {

// Each can be missing on a host, and then the manager knows (it has tried): what is asked for here
// is done, or the worker does not start.
enum Layer : uint32_t {
    kUser = 1 << 0,        // a user of its own, or a user namespace when `uid` is not given
    kMount = 1 << 1,       // a root that holds only `read`, `device` and /tmp
    kPid = 1 << 2,         // sees and signals only its own processes
    kIpc = 1 << 3,         // System V IPC, host name and cgroup view of its own
    kNetwork = 1 << 4,     // an empty network namespace
    kPrivileges = 1 << 5,  // no capabilities, and no way to gain any
    kSeccomp = 1 << 6,     // no system calls that only attack the kernel or other processes
    kLandlock = 1 << 7,    // files, TCP ports and signals, by rules that need no rights to set up
    kRlimits = 1 << 8,     // memory, processes, files
    kCgroup = 1 << 9,      // the lease's control groups
};
inline constexpr uint32_t kLayerCount = 10;

// The name of a layer as the manager and its operator write it.
[[nodiscard]] const char* layer_name(Layer layer);

struct Config {
    uint32_t layers = 0;
    int64_t uid = -1;  // and gid; -1: stays the manager's
    // Existing absolute paths without symbolic links on the way. `read`: for reading and executing;
    // a link at the end is kept as a link. `write`: only without kMount, which has its own /tmp.
    std::vector<std::string> read, write, device;
    std::vector<std::string> cgroups;  // files `tasks` or `cgroup.procs` to join
    std::string socket;                // where to listen for the worker; it gets the socket as fd 4
    bool network = false;              // may open Internet sockets
    bool rdma = false;                 // may open the netlink sockets that RDMA libraries use

    [[nodiscard]] bool has(Layer layer) const { return (layers & layer) != 0; }
};

// The second part.
struct Assignment {
    int core = -1;  // -1: is not pinned
    std::vector<std::string>
        package;                // more to read, as in Config; without kMount it must be there
    int64_t socket_owner = -1;  // who may connect beside the manager's user and root
    // 0: no limit, or no more than there is.
    uint64_t tmp_bytes = 0, data_bytes = 0, file_bytes = 0, locked_bytes = 0;
    uint64_t processes = 0, files = 0;
};

// False: `reason` names the line.
[[nodiscard]] bool parse_config(std::string_view text, Config* config, std::string* reason);
[[nodiscard]] bool parse_assignment(std::string_view text, Assignment* assignment,
                                    std::string* reason);

}  // namespace rfaas::sandbox
