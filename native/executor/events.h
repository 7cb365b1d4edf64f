// What a worker tells the executor manager: JSON lines on file descriptor 3.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "executor/package.h"
#include "invocation/worker_channel.h"

namespace rfaas::executor {

inline constexpr int kEventsFd = 3;

class Events final : public invocation::WorkerEvents {
  public:
    void ready(const std::string& address, const std::vector<Function>& functions);
    void error(std::string_view message);
    void timed_out(const std::string& function, uint64_t request_id);
    void connected(const std::string& peer) override;
    void disconnected() override;
    void refused(const std::string& peer, std::string_view why) override;  // once per reason
    void served(const std::string& line) override;

  private:
    static void write_line(const std::string& line);
    std::vector<std::string> refusals_;
};

// From now on SIGSEGV and its like first tell which function was running, then call `reply` with a
// text for the caller of that function. Call on the thread that runs the functions.
void install_crash_handler(void (*reply)(const char* cause));
// A function that calls exit() is told of in the same way.
void install_exit_handler();
// The call that runs now, for the crash handler; null when it is over. `name` must stay alive.
void set_running(const char* name, uint64_t request_id);

}  // namespace rfaas::executor
