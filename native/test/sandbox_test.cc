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
        "layer=mount\nlayer=pid\nuid=1900000000\nread=/usr\nread=/etc/ld.so.cache\n"
        "write=/tmp/lease\ndevice=/dev/infiniband\ncgroup=/sys/fs/cgroup/pids/a/tasks\n"
        "socket=/run/rfaas/a b=c\nnetwork=1\nrdma=0\n");
    EXPECT_TRUE(config.has(kMount) && config.has(kPid));
    EXPECT_FALSE(config.has(kSeccomp));
    EXPECT_EQ(config.uid, 1'900'000'000);
    EXPECT_EQ(config.read, (std::vector<std::string>{"/usr", "/etc/ld.so.cache"}));
    EXPECT_EQ(config.socket, "/run/rfaas/a b=c");
    EXPECT_TRUE(config.network);
    EXPECT_FALSE(config.rdma);
    EXPECT_EQ(parse("").layers, 0U);

    Assignment assignment;
    std::string reason;
    ASSERT_TRUE(
        parse_assignment("core=3\npackage=/var/a.so\npackage=/var/b\nsocket_owner=0\n"
                         "tmp_bytes=1048576\ndata_bytes=1\nfile_bytes=2\n"
                         "locked_bytes=3\nprocesses=4\nfiles=5\n",
                         &assignment, &reason))
        << reason;
    EXPECT_EQ(assignment.core, 3);
    EXPECT_EQ(assignment.package, (std::vector<std::string>{"/var/a.so", "/var/b"}));
    EXPECT_EQ(assignment.socket_owner, 0);
    EXPECT_EQ(assignment.tmp_bytes, 1U << 20);
    EXPECT_EQ(assignment.files, 5U);
}

TEST(SandboxConfig, RefusesWhatIsNotExactlyRight) {
    const auto refused = [](auto parse, auto part, std::string_view line) {
        std::string reason;
        EXPECT_FALSE(parse(line, &part, &reason)) << line;
        EXPECT_NE(reason.find(line.substr(0, line.find('\n'))), std::string::npos) << reason;
    };
    for (const std::string_view line : {"layer=mounts\n",
                                        "layer=\n",
                                        "uid=0\n",
                                        "uid=-1\n",
                                        "uid=4294967295\n",
                                        "uid=1x\n",
                                        "read=usr\n",
                                        "read=/\n",
                                        "read=/usr/../etc\n",
                                        "read=/usr//bin\n",
                                        "read=/usr/\n",
                                        "read=/./usr\n",
                                        "socket=../s\n",
                                        "network=2\n",
                                        "network=\n",
                                        "nonsense=1\n",
                                        "read\n",
                                        "core=1\n",  // of the other part
                                        "\n",
                                        "rdma=1"}) {
        refused(parse_config, Config{}, line);
    }
    for (const std::string_view line :
         {"core=-1\n", "core=99999999999\n", "package=a\n", "socket_owner=-1\n", "files=0\n",
          "files=\n", "data_bytes=18446744073709551616\n", "uid=1\n", "layer=user\n", "core=1"}) {
        refused(parse_assignment, Assignment{}, line);
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
        Assignment assignment;
        assignment.files = 50;
        assignment.file_bytes = 1 << 20;
        assignment.locked_bytes = INT64_MAX;  // may be more than the hard limit
        std::string reason;
        if (!open_limits(&reason) || !set_limits(::getpid(), assignment, &reason)) return false;
        rlimit files = {}, core = {};
        ::getrlimit(RLIMIT_NOFILE, &files);
        ::getrlimit(RLIMIT_CORE, &core);
        return files.rlim_cur == 50 && files.rlim_max == 50 && core.rlim_max == 0;
    }));
}

}  // namespace
}  // namespace rfaas::sandbox
