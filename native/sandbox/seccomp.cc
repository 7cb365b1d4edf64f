// A list of what is refused, not of what is allowed: functions are anybody's programs, and what
// they need cannot be known. So the filter takes away what reaches other processes or parts of the
// kernel that are known for their holes, and leaves the rest to the other layers.
#include "sandbox/seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>

namespace rfaas::sandbox {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

// System calls that are younger than the headers of some supported systems. They have the same
// number on every architecture.
constexpr int kFutureCalls[] = {
    425,  // io_uring_setup
    426,  // io_uring_enter
    427,  // io_uring_register
    428,  // open_tree
    429,  // move_mount
    430,  // fsopen
    431,  // fsconfig
    432,  // fsmount
    433,  // fspick
    438,  // pidfd_getfd
    440,  // process_madvise
    442,  // mount_setattr
    447,  // memfd_secret: pages that cannot be reclaimed
    448,  // process_mrelease
    467,  // open_tree_attr
};

constexpr int kRefusedCalls[] = {
    // Other processes.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_migrate_pages,
    SYS_move_pages,
    // The core that was leased: the launcher has pinned us to it.
    SYS_sched_setaffinity, SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr,
    // Namespaces and mounts.
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
    SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_fanotify_init, SYS_quotactl,
    // Parts of the kernel.
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_add_key, SYS_request_key, SYS_keyctl,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
    SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
    // The whole machine.
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_syslog, SYS_acct, SYS_vhangup, SYS_settimeofday,
    SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname,
    // Another layout of the address space, or another system's calls.
    SYS_personality};

constexpr uint32_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                     CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

using Program = std::vector<sock_filter>;

constexpr sock_filter kAllow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
constexpr sock_filter kRefuse = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
constexpr sock_filter kUnknown = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
constexpr sock_filter kKill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);

sock_filter load(size_t offset) {
    return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}

// `then` runs if the loaded word is `value`; the number is loaded again by whoever needs it after
// a body that loads something else, so a body must end in a return.
void when(Program* program, uint32_t value, const Program& then) {
    program->push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, static_cast<uint8_t>(then.size())));
    program->insert(program->end(), then.begin(), then.end());
}

// The low word of an argument; both architectures are little-endian.
size_t argument(size_t index) {
    return offsetof(seccomp_data, args) + index * sizeof(uint64_t);
}

Program sockets(const Config& config) {
    Program body = {load(argument(0))};
    std::vector<uint32_t> families = {AF_UNIX};
    if (config.network) families.insert(families.end(), {AF_INET, AF_INET6});
    // Names of interfaces and addresses, and RDMA devices.
    if (config.network || config.rdma) families.push_back(AF_NETLINK);
    for (const uint32_t family : families) when(&body, family, {kAllow});
    body.push_back(kRefuse);
    return body;
}

Program make_filter(const Config& config) {
    Program program = {load(offsetof(seccomp_data, arch)),
                       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0), kKill,
                       load(offsetof(seccomp_data, nr))};
#if defined(__x86_64__)
    // The x32 ABI: the same calls under other numbers.
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    program.push_back(kUnknown);
#endif
    for (const int number : kRefusedCalls) when(&program, static_cast<uint32_t>(number), {kRefuse});
    for (const int number : kFutureCalls) when(&program, static_cast<uint32_t>(number), {kRefuse});
    // Its flags are in memory, which a filter cannot read. The C library falls back to clone().
    constexpr uint32_t kClone3 = 435;
    when(&program, kClone3, {kUnknown});
    when(&program, SYS_clone,
         {load(argument(0)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kNamespaceFlags, 0, 1), kRefuse,
          kAllow});
    when(&program, SYS_socket, sockets(config));
    when(&program, SYS_socketpair, sockets(config));
    program.push_back(kAllow);
    return program;
}

}  // namespace

bool filter_system_calls(const Config& config, std::string* reason) {
    if (kArchitecture == 0) {
        *reason = "the filter for system calls knows x86_64 and arm64 only";
        return false;
    }
    Program filter = make_filter(config);
    const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0) return true;
    *reason = std::string("cannot install the filter for system calls: ") + std::strerror(errno);
    return false;
}

}  // namespace rfaas::sandbox
