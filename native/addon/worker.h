// The worker's end of an executor, for functions written in JavaScript: invocation::WorkerChannel
// with its slots as ArrayBuffers, and the watchdog that ends a function which never returns.
#pragma once

#include <napi.h>
#include <memory>
#include <string>
#include <vector>

#include "addon/module.h"
#include "addon/util/door.h"
#include "addon/util/uv_handle.h"
#include "invocation/watchdog.h"
#include "invocation/worker_channel.h"

namespace rfaas::addon {

// What JavaScript and the data path tell each other.
struct WorkerRecord {
    uint32_t budget_us;  // next(), replyNext(): how long to wait for a call
    uint32_t slot;       // reply(), replyNext(): whose result is in its output,
    uint32_t length;     // and how long it is
    // The call that next() found.
    uint32_t function;
    uint32_t input_length;
    uint32_t output_capacity;
    double arrived_ms;   // CLOCK_MONOTONIC, some milliseconds early for long deadlines
    double deadline_ms;  // infinity: none
    uint64_t request_id;
};

class Worker final : public Napi::ObjectWrap<Worker>,
                     public Closable,
                     public invocation::WorkerEvents {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a08, 0xa1c3a5f2d7e90008};
    static Napi::Function define(Napi::Env env);
    // Arguments: options, see NativeWorkerOptions in lib/native.ts; callback(event, detail).
    static Napi::Value create(const Napi::CallbackInfo& info);
    explicit Worker(const Napi::CallbackInfo& info);
    ~Worker() override;
    void close(CloseReason reason) override;

  private:
    static napi_value next(napi_env env, napi_callback_info info);
    static napi_value reply(napi_env env, napi_callback_info info);
    static napi_value reply_next(napi_env env, napi_callback_info info);
    static Worker* open_one(napi_env env, napi_callback_info info);
    Napi::Value record(const Napi::CallbackInfo& info);
    Napi::Value input(const Napi::CallbackInfo& info);
    Napi::Value output(const Napi::CallbackInfo& info);
    Napi::Value address(const Napi::CallbackInfo& info);
    Napi::Value input_stride(const Napi::CallbackInfo& info);
    Napi::Value output_stride(const Napi::CallbackInfo& info);
    void fail(const Napi::CallbackInfo& info);
    void watch(const Napi::CallbackInfo& info);
    void refuse(const Napi::CallbackInfo& info);
    void settle(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    int next_slot();
    int reply_slot();
    void on_readable();
    [[noreturn]] void expire();
    void emit(const char* event, const std::string& detail);

    void connected(const std::string& peer) override;
    void disconnected() override;
    void refused(const std::string& peer, std::string_view why) override;
    void served(const std::string& line) override;

    Module& module_;
    Doors<Worker> doors_{this};
    std::unique_ptr<invocation::WorkerChannel> channel_;
    Napi::Reference<Napi::ArrayBuffer> buffer_, input_, output_;
    WorkerRecord* record_ = nullptr;  // in buffer_
    invocation::Call call_;
    std::vector<std::string> functions_;  // names, for expire()
    int events_fd_ = -1;                  // where expire() tells the executor manager
    Napi::FunctionReference on_event_;
    Napi::FunctionReference on_wake_;
    FdWatcher watcher_;
    std::unique_ptr<invocation::Watchdog> watchdog_;  // its thread uses the channel
};

}  // namespace rfaas::addon
