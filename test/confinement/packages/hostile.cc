// What a function could try. Each attack answers with the name of the error that it met, or with what
// it got.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <rfaas/function.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Attack = std::string (*)(const std::string& argument);

std::string name_of(int error) {
    const char* name = ::strerrorname_np(error);
    return name == nullptr ? std::to_string(error) : name;
}

std::string outcome(long rc) { return rc < 0 ? name_of(errno) : "done"; }

// ── files ───────────────────────────────────────────────────────────────────────────────────────

std::string read_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY);
    char text[4096];
    const ssize_t count = fd < 0 ? -1 : ::read(fd, text, sizeof text);
    const std::string result = count < 0 ? name_of(errno) : std::string(text, count);
    ::close(fd);
    return result;
}

std::string list(const std::string& path) {
    DIR* folder = ::opendir(path.c_str());
    if (folder == nullptr) return name_of(errno);
    std::string names;
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] != '.') names += std::string(entry->d_name) + "\n";
    }
    ::closedir(folder);
    return names;
}

std::string write_file(const std::string& path) {
    return outcome(::open(path.c_str(), O_WRONLY | O_CREAT, 0666));
}

// Bytes that a folder takes before it is full.
std::string fill(const std::string& folder) {
    const std::vector<char> block(1 << 20, 'x');
    size_t bytes = 0;
    for (int file = 0; file < 64; ++file) {
        const std::string path = folder + "/" + std::to_string(file);
        const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT, 0666);
        if (fd < 0) break;
        for (ssize_t count = 1; count > 0 && bytes < (1UL << 30); bytes += count) {
            count = ::write(fd, block.data(), block.size());
            if (count <= 0) break;
        }
        ::close(fd);
    }
    for (int file = 0; file < 64; ++file) ::unlink((folder + "/" + std::to_string(file)).c_str());
    return std::to_string(bytes);
}

// ── processes ───────────────────────────────────────────────────────────────────────────────────

std::string kill_process(const std::string& pid) {
    return outcome(::kill(std::atoi(pid.c_str()), SIGKILL));
}

std::string trace(const std::string& pid) {
    return outcome(::ptrace(PTRACE_ATTACH, std::atoi(pid.c_str()), nullptr, nullptr));
}

std::string peek(const std::string& pid) {
    char byte = 0;
    iovec local = {&byte, 1};
    iovec remote = {reinterpret_cast<void*>(0x400000), 1};
    return outcome(::process_vm_readv(std::atoi(pid.c_str()), &local, 1, &remote, 1, 0));
}

// How many processes there are before there are no more.
std::string fork_without_end(const std::string&) {
    std::vector<pid_t> children;
    while (children.size() < 5000) {
        const pid_t child = ::fork();
        if (child == 0) {
            for (;;) ::pause();
        }
        if (child < 0) break;
        children.push_back(child);
    }
    for (const pid_t child : children) ::kill(child, SIGKILL);
    for (const pid_t child : children) ::waitpid(child, nullptr, 0);
    return std::to_string(children.size());
}

// A process that has left its parent, its session and its files, and is told from others by its
// arguments.
std::string leave_daemon(const std::string& seconds) {
    const pid_t child = ::fork();
    if (child < 0) return name_of(errno);
    if (child == 0) {
        ::setsid();
        if (::fork() != 0) ::_exit(0);
        for (int fd = 0; fd < 64; ++fd) ::close(fd);
        ::execl("/bin/sleep", "sleep", seconds.c_str(), nullptr);
        ::_exit(1);
    }
    ::waitpid(child, nullptr, 0);
    return "done";
}

std::string move_to_core(const std::string& core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(std::atoi(core.c_str()), &set);
    return outcome(::sched_setaffinity(0, sizeof set, &set));
}

// ── memory ──────────────────────────────────────────────────────────────────────────────────────

// Megabytes that there were.
std::string allocate(const std::string& megabytes) {
    std::vector<void*> blocks;
    const size_t most = std::strtoul(megabytes.c_str(), nullptr, 10);
    while (blocks.size() < most) {
        void* block = std::malloc(1 << 20);
        if (block == nullptr) break;
        std::memset(block, 1, 1 << 20);
        blocks.push_back(block);
    }
    for (void* block : blocks) std::free(block);
    return std::to_string(blocks.size());
}

std::string memory_files(const std::string& megabytes) {
    std::vector<int> files;
    const size_t most = std::strtoul(megabytes.c_str(), nullptr, 10);
    const std::vector<char> block(1 << 20, 'x');
    while (files.size() < most) {
        const int fd = ::memfd_create("hostile", 0);
        if (fd < 0 || ::write(fd, block.data(), block.size()) <= 0) break;
        files.push_back(fd);
    }
    for (const int fd : files) ::close(fd);
    return std::to_string(files.size());
}

// ── sockets ─────────────────────────────────────────────────────────────────────────────────────

std::string connect_tcp(const std::string& port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return name_of(errno);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::atoi(port.c_str())));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const std::string result =
        outcome(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address));
    ::close(fd);
    return result;
}

std::string connect_unix(const std::string& path) {
    const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (fd < 0) return name_of(errno);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    const std::string result =
        outcome(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address));
    ::close(fd);
    return result;
}

// ── the kernel ──────────────────────────────────────────────────────────────────────────────────

std::string become_root(const std::string&) { return outcome(::setuid(0)); }
std::string new_namespace(const std::string&) { return outcome(::unshare(CLONE_NEWUSER)); }
std::string mount_something(const std::string&) {
    return outcome(::mount("tmpfs", "/tmp", "tmpfs", 0, nullptr));
}
std::string load_program(const std::string&) { return outcome(::syscall(SYS_bpf, 0, nullptr, 0)); }

template <Attack attack>
int64_t call(const void* input, size_t input_bytes, void* output, size_t capacity, rfaas_context*) {
    const std::string result = attack(std::string(static_cast<const char*>(input), input_bytes));
    const size_t length = std::min(result.size(), capacity);
    std::memcpy(output, result.data(), length);
    return static_cast<int64_t>(length);
}

}  // namespace

RFAAS_FUNCTIONS({"read", call<read_file>}, {"list", call<list>}, {"write", call<write_file>},
                {"fill", call<fill>}, {"kill", call<kill_process>}, {"trace", call<trace>},
                {"peek", call<peek>}, {"fork", call<fork_without_end>},
                {"daemon", call<leave_daemon>}, {"pin", call<move_to_core>},
                {"allocate", call<allocate>}, {"memfds", call<memory_files>},
                {"tcp", call<connect_tcp>}, {"unix", call<connect_unix>},
                {"setuid", call<become_root>}, {"unshare", call<new_namespace>},
                {"mount", call<mount_something>}, {"bpf", call<load_program>})
