// The client's end of an executor, for JavaScript: invocation::ClientChannel, called through one
// preallocated record, and two ways of waiting for outcomes on the event loop.
#pragma once

#include <napi.h>
#include <memory>
#include <optional>
#include <vector>

#include "addon/device.h"
#include "addon/memory_region.h"
#include "addon/record_runs.h"
#include "addon/util/door.h"
#include "addon/util/uv_handle.h"
#include "invocation/client_channel.h"

namespace rfaas::addon {

// The buffer that JavaScript and this class share: one request, outcomes, and requests that are
// sent together: by send_queued(), and before outcomes are looked for.
inline constexpr uint32_t kOutcomeBatch = 64;
inline constexpr uint32_t kQueueRoom = 64;
struct CallRecord {
    invocation::CallRequest request;
    uint32_t alone;          // submit(): the caller sends nothing else meanwhile
    uint32_t patience_us;    // call(): how long to spin for the outcome; what is left if it failed
    uint32_t result_length;  // of call() and submit(): length of the result or of the error's text
    invocation::CallOutcome outcomes[kOutcomeBatch];
    uint32_t hold;  // others wait for slots: runs of records leave theirs to JavaScript
    uint32_t queued;
    invocation::CallRequest queue[kQueueRoom];
};
// submit() returns this plus its status for a call whose outcome is in already.
inline constexpr int kAnswered = 1;
static_assert(sizeof(invocation::CallRequest) == 40 && sizeof(invocation::CallOutcome) == 16);

class Invoker final : public Napi::ObjectWrap<Invoker>, public Closable {
  public:
    static constexpr napi_type_tag kTypeTag{0x8d1b6b0f41d24a07, 0xa1c3a5f2d7e90007};
    static Napi::Function define(Napi::Env env);
    // Arguments: device, workers, slots.
    static Napi::Value create(const Napi::CallbackInfo& info);
    explicit Invoker(const Napi::CallbackInfo& info);
    ~Invoker() override;
    void close(CloseReason reason) override;

  private:
    struct Connecting {
        FdWatcher watcher;
        Napi::FunctionReference callback;
    };

    static Invoker* open_one(napi_env env, napi_callback_info info);
    static Invoker* open_self(napi_env env, napi_callback_info info);
    static napi_value call(napi_env env, napi_callback_info info);
    static napi_value submit(napi_env env, napi_callback_info info);
    static napi_value send_queued(napi_env env, napi_callback_info info);
    static napi_value finish(napi_env env, napi_callback_info info);
    static napi_value poll(napi_env env, napi_callback_info info);
    napi_value finished(napi_env env, int rc, const Spinner& spinner,
                        const invocation::CallOutcome& outcome);
    Napi::Value record(const Napi::CallbackInfo& info);
    void connect(const Napi::CallbackInfo& info);
    Napi::Value reconnect(const Napi::CallbackInfo& info);
    void disconnect(const Napi::CallbackInfo& info);
    void abandon(const Napi::CallbackInfo& info);
    Napi::Value welcome(const Napi::CallbackInfo& info);
    Napi::Value add_region(const Napi::CallbackInfo& info);
    void remove_region(const Napi::CallbackInfo& info);
    Napi::Value error_text(const Napi::CallbackInfo& info);
    void on_outcomes(const Napi::CallbackInfo& info);
    void attend(const Napi::CallbackInfo& info);
    void close(const Napi::CallbackInfo& info);

    void connect_step(uint32_t worker);
    int answer_at_once();
    bool may_hold_loop();
    void send_queued();
    Napi::Value turns(const Napi::CallbackInfo& info);
    Napi::Value add_run(const Napi::CallbackInfo& info);
    void remove_run(const Napi::CallbackInfo& info);
    int poll_outcomes();
    void deliver(int count);
    void turn();
    void sleep();
    void on_readable();
    void wait_hot();
    void rest();

    Module& module_;
    std::shared_ptr<DeviceHolder> device_;
    std::unique_ptr<invocation::ClientChannel> channel_;
    std::vector<fabric::MemoryRegion*> regions_;  // pinned while workers may write to them
    std::vector<std::unique_ptr<Connecting>> connecting_;
    Napi::Reference<Napi::ArrayBuffer> buffer_;
    CallRecord* record_ = nullptr;  // in buffer_
    std::optional<RecordRuns> runs_;
    bool went_on_ = false;  // calls of runs have ended, of which nobody was told
    Doors<Invoker> doors_{this};
    Napi::FunctionReference on_outcomes_;
    LoopTurner turner_;
    FdWatcher watcher_;
    LoopCounter loop_;
    uint64_t hot_ns_ = 0;
    uint64_t idle_since_ns_ = 0;
    bool turning_ = false;
    uint32_t unhurried_ = 0;      // calls to go until one is spun for again
    uint64_t held_turn_ = 0;      // of the loop, in which calls were answered at once
    uint64_t held_since_ns_ = 0;  // on the coarse clock
};

}  // namespace rfaas::addon
