#include "executor/events.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/json.h"

namespace rfaas::executor {

namespace {

// Written by the worker's thread, read by the handler on the same thread.
const char* volatile running_name = nullptr;
volatile uint64_t running_id = 0;
void (*volatile reply_to_caller)(const char* cause) = nullptr;

struct SignalCause {
    int signal;
    const char* text;
};
constexpr SignalCause kSignals[] = {
    {SIGSEGV, "the function was killed by SIGSEGV (it touched memory that is not its own)"},
    {SIGBUS, "the function was killed by SIGBUS (it touched memory that is not there)"},
    {SIGFPE, "the function was killed by SIGFPE (an impossible arithmetic operation)"},
    {SIGILL, "the function was killed by SIGILL (an illegal instruction)"},
    {SIGABRT, "the function was killed by SIGABRT (it called abort or failed an assertion)"},
};

// Async-signal-safe: no allocation, no stdio. `text` may hold quotes only if it is our own.
struct SafeLine {
    char bytes[512];
    size_t length = 0;

    void text(const char* part) {
        while (*part != '\0' && length < sizeof bytes) bytes[length++] = *part++;
    }
    void quoted(const char* part) {
        for (; *part != '\0' && length < sizeof bytes - 64; ++part) {
            const auto c = static_cast<unsigned char>(*part);
            bytes[length++] = c < 0x20 || c == '"' || c == '\\' ? '?' : *part;
        }
    }
    void number(uint64_t value) {
        char digits[20];
        size_t count = 0;
        do {
            digits[count++] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        while (count != 0 && length < sizeof bytes) bytes[length++] = digits[--count];
    }
};

void on_crash(int signal) {
    const char* name = running_name;
    if (name != nullptr) {
        SafeLine line;
        line.text("{\"event\":\"running\",\"function\":\"");
        line.quoted(name);
        line.text("\",\"requestId\":\"");
        line.number(running_id);
        line.text("\",\"signal\":");
        line.number(static_cast<uint64_t>(signal));
        line.text("}\n");
        [[maybe_unused]] const ssize_t bytes = ::write(kEventsFd, line.bytes, line.length);
        // The channel is in order: its code was not running, the function's was. Should it need a
        // lock that the function held (malloc's), the alarm ends us.
        running_name = nullptr;
        ::alarm(1);
        for (const SignalCause& cause : kSignals) {
            if (cause.signal == signal) reply_to_caller(cause.text);
        }
    }
    // SA_RESETHAND has restored the default: returning would repeat a fault, raise() repeats it for
    // signals that were sent.
    ::raise(signal);
}

}  // namespace

void Events::write_line(const std::string& line) {
    const std::string whole = line + "\n";
    size_t written = 0;
    while (written < whole.size()) {
        const ssize_t count = ::write(kEventsFd, whole.data() + written, whole.size() - written);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return;  // the manager is gone; stdin tells us so
        written += static_cast<size_t>(count);
    }
}

void Events::served(const std::string& line) {
    write_line(line);
}

void Events::ready(const std::string& address, const std::vector<Function>& functions) {
    std::string names;
    for (const Function& function : functions) {
        if (!names.empty()) names += ',';
        names += json_string(function.name);
    }
    write_line("{\"event\":\"ready\",\"address\":" + json_string(address) + ",\"functions\":[" +
               names + "]}");
}

void Events::error(std::string_view message) {
    write_line("{\"event\":\"error\",\"message\":" + json_string(message) + "}");
}

void Events::timed_out(const std::string& function, uint64_t request_id) {
    write_line("{\"event\":\"timeout\",\"function\":" + json_string(function) +
               ",\"requestId\":\"" + std::to_string(request_id) + "\"}");
}

void Events::connected(const std::string&) {
    write_line("{\"event\":\"connected\"}");
}

void Events::disconnected() {
    write_line("{\"event\":\"disconnected\"}");
}

void Events::refused(const std::string& peer, std::string_view why) {
    if (std::find(refusals_.begin(), refusals_.end(), why) != refusals_.end()) return;
    refusals_.emplace_back(why);
    write_line("{\"event\":\"refused\",\"reason\":" +
               json_string(std::string(why) + " (" + peer + ")") + "}");
}

void install_crash_handler(void (*reply)(const char* cause)) {
    reply_to_caller = reply;
    // Its own stack, or a function that overflowed the stack could not tell.
    const size_t bytes = 64 * 1024;
    stack_t stack = {};
    stack.ss_sp =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_size = bytes;
    if (stack.ss_sp != MAP_FAILED) ::sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_handler = on_crash;
    action.sa_flags = SA_RESETHAND | SA_ONSTACK | SA_NODEFER;
    for (const SignalCause& cause : kSignals) ::sigaction(cause.signal, &action, nullptr);
}

void install_exit_handler() {
    std::atexit([] {
        if (running_name == nullptr) return;
        running_name = nullptr;
        reply_to_caller("the function ended its worker's process (it called exit)");
    });
}

void set_running(const char* name, uint64_t request_id) {
    running_id = request_id;
    running_name = name;
}

}  // namespace rfaas::executor
