#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/config.h"
#include "sandbox/privileges.h"
#include "sandbox/seccomp.h"

namespace rfaas::sandbox {
namespace {

Config parse(std::string_view text) {
    Config config;
    std::string reason;
    EXPECT_TRUE(parse_config(text, &config, &reason)) << reason;
    return config;
}

bool confine(const Config& wanted) {
    Config config = wanted;
    config.layers = kPrivileges;
    Layer failed = kUser;
    std::string reason;
    return drop_privileges(config, &failed, &reason) && filter_system_calls(config, &reason);
}

// Runs `check` in a process that may then be spoiled; true if it returned true.
template <typename Check>
bool in_child(Check check) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(check() ? 0 : 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(SandboxConfig, TakesEveryKeyOnceOrMore) {
    const Config config = parse(
        "layer=mount\nlayer=pid\nuid=1900000000\ncore=3\nread=/usr\nread=/etc/ld.so.cache\n"
        "write=/tmp/lease\ndevice=/dev/infiniband\ncgroup=/sys/fs/cgroup/pids/a/cgroup.procs\n"
        "socket=/run/rfaas/a b=c\nsocket_owner=0\nnetwork=1\nrdma=0\ntmp_bytes=1048576\n"
        "data_bytes=1\nfile_bytes=2\nlocked_bytes=3\nprocesses=4\nfiles=5\n");
    EXPECT_TRUE(config.has(kMount) && config.has(kPid));
    EXPECT_FALSE(config.has(kSeccomp));
    EXPECT_EQ(config.uid, 1'900'000'000);
    EXPECT_EQ(config.core, 3);
    EXPECT_EQ(config.read, (std::vector<std::string>{"/usr", "/etc/ld.so.cache"}));
    EXPECT_EQ(config.socket, "/run/rfaas/a b=c");
    EXPECT_EQ(config.socket_owner, 0);
    EXPECT_TRUE(config.network);
    EXPECT_FALSE(config.rdma);
    EXPECT_EQ(config.tmp_bytes, 1U << 20);
    EXPECT_EQ(config.files, 5U);
    EXPECT_EQ(parse("").layers, 0U);
}

TEST(SandboxConfig, RefusesWhatIsNotExactlyRight) {
    for (const std::string_view line : {"layer=mounts\n",
                                        "layer=\n",
                                        "uid=0\n",
                                        "uid=-1\n",
                                        "uid=4294967295\n",
                                        "uid=1x\n",
                                        "core=-1\n",
                                        "core=99999999999\n",
                                        "read=usr\n",
                                        "read=/\n",
                                        "read=/usr/../etc\n",
                                        "read=/usr//bin\n",
                                        "read=/usr/\n",
                                        "read=/./usr\n",
                                        "socket=../s\n",
                                        "network=2\n",
                                        "network=\n",
                                        "files=0\n",
                                        "files=\n",
                                        "data_bytes=18446744073709551616\n",
                                        "nonsense=1\n",
                                        "read\n",
                                        "\n",
                                        "core=1"}) {
        Config config;
        std::string reason;
        EXPECT_FALSE(parse_config(line, &config, &reason)) << line;
        EXPECT_NE(reason.find(line.substr(0, line.find('\n'))), std::string::npos) << reason;
    }
    Config config;
    std::string reason;
    EXPECT_FALSE(parse_config(std::string("read=/usr\0/x\n", 13), &config, &reason));
}

TEST(SandboxSeccomp, RefusesCallsThatReachOthersAndLeavesTheRest) {
    EXPECT_TRUE(in_child([] {
        if (!confine(Config{})) return false;
        const auto refused = [](long rc) { return rc == -1 && errno == EPERM; };
        return refused(::unshare(CLONE_NEWUSER)) && refused(::ptrace(PTRACE_TRACEME, 0, 0, 0)) &&
               refused(::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)) &&
               refused(::syscall(SYS_bpf, 0, 0, 0)) &&
               refused(::syscall(425 /* io_uring_setup */, 1, nullptr)) &&
               refused(::socket(AF_INET, SOCK_STREAM, 0)) &&
               refused(::socket(AF_NETLINK, SOCK_RAW, 0)) && ::syscall(435, 0, 0) == -1 &&
               errno == ENOSYS && ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0 &&
               in_child([] { return true; });
    }));
}

TEST(SandboxSeccomp, OpensTheNetworkWhenAsked) {
    EXPECT_TRUE(in_child([] {
        Config config;
        config.network = true;
        return confine(config) && ::socket(AF_INET, SOCK_DGRAM, 0) >= 0 &&
               ::socket(AF_INET6, SOCK_DGRAM, 0) >= 0 && ::socket(AF_PACKET, SOCK_RAW, 0) == -1 &&
               errno == EPERM;
    }));
}

TEST(SandboxLimits, AreSetOrLoweredToWhatMayBeSet) {
    EXPECT_TRUE(in_child([] {
        Config config;
        config.files = 50;
        config.file_bytes = 1 << 20;
        config.locked_bytes = INT64_MAX;  // may be more than the hard limit
        std::string reason;
        if (!set_limits(config, &reason)) return false;
        rlimit files = {}, core = {};
        ::getrlimit(RLIMIT_NOFILE, &files);
        ::getrlimit(RLIMIT_CORE, &core);
        return files.rlim_cur == 50 && files.rlim_max == 50 && core.rlim_max == 0;
    }));
}

}  // namespace
}  // namespace rfaas::sandbox
