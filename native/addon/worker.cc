#include "addon/worker.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>
#include <limits>
#include <utility>

#include "addon/util/args.h"
#include "addon/util/error.h"
#include "core/json.h"

namespace rfaas::addon {

namespace {

constexpr int kTimedOut = 124;  // exit code, as of the native executor

struct WorkerInit {
    invocation::WorkerOptions options;
    std::vector<std::string> functions;
    int events_fd;
    Napi::Function on_event;
};

std::string text_of(const Napi::Object& options, const char* name) {
    return options.Get(name).ToString().Utf8Value();
}

uint32_t number_of(const Napi::Object& options, const char* name) {
    return options.Get(name).ToNumber().Uint32Value();
}

napi_value int32_value(napi_env env, int32_t value) {
    napi_value out = nullptr;
    napi_create_int32(env, value, &out);
    return out;
}

// The pages belong to the channel; close() detaches the buffer before it lets go of them.
Napi::Reference<Napi::ArrayBuffer> view_of(Napi::Env env, fabric::MemoryRegion* region) {
    napi_value buffer = nullptr;
    napi_create_external_arraybuffer(
        env, region->data(), region->length(), [](napi_env, void*, void*) {}, nullptr, &buffer);
    return Napi::Persistent(Napi::ArrayBuffer(env, buffer));
}

}  // namespace

Napi::Function Worker::define(Napi::Env env) {
    return DefineClass(env, "Worker",
                       {
                           InstanceAccessor<&Worker::record>("record"),
                           InstanceAccessor<&Worker::input>("input"),
                           InstanceAccessor<&Worker::output>("output"),
                           InstanceAccessor<&Worker::address>("address"),
                           InstanceAccessor<&Worker::input_stride>("inputStride"),
                           InstanceAccessor<&Worker::output_stride>("outputStride"),
                           InstanceMethod<&Worker::fail>("fail", napi_default_method),
                           InstanceMethod<&Worker::watch>("watch", napi_default_method),
                           InstanceMethod<&Worker::refuse>("refuse", napi_default_method),
                           InstanceMethod<&Worker::settle>("settle", napi_default_method),
                           InstanceMethod<&Worker::close>("close", napi_default_method),
                       });
}

Napi::Value Worker::create(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto options = info[0].As<Napi::Object>();
    WorkerInit init;
    init.options.provider = text_of(options, "provider");
    init.options.device = text_of(options, "device");
    init.options.address = text_of(options, "address");
    init.options.slots = number_of(options, "slots");
    init.options.payload_bytes = number_of(options, "payloadBytes");
    init.options.output_bytes = number_of(options, "outputBytes");
    const auto ticket = options.Get("ticket").As<Napi::Uint8Array>();
    if (ticket.ByteLength() == sizeof init.options.ticket) {
        std::memcpy(init.options.ticket, ticket.Data(), sizeof init.options.ticket);
    }
    const auto functions = options.Get("functions").As<Napi::Array>();
    for (uint32_t i = 0; i < functions.Length(); ++i) {
        init.functions.push_back(functions.Get(i).ToString().Utf8Value());
    }
    init.options.function_count = static_cast<uint32_t>(init.functions.size());
    init.options.started_fd = options.Get("startedFd").ToNumber().Int32Value();
    init.events_fd = options.Get("eventsFd").ToNumber().Int32Value();
    init.on_event = info[1].As<Napi::Function>();
    return construct(env, Module::of(env).worker_class, init);
}

Worker::Worker(const Napi::CallbackInfo& info) : ObjectWrap(info), module_(Module::of(info.Env())) {
    auto* init = construction_arg<WorkerInit>(info);
    if (init == nullptr) return;
    const Napi::Env env = info.Env();
    // A manager that is killed takes its workers along, whatever their functions are doing.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto channel = std::make_unique<invocation::WorkerChannel>(this);
    std::string reason;
    const int failed = channel->open(init->options, &reason);
    if (failed != 0) {
        throw_fabric_error(env, failed, "open_worker", reason);
        return;
    }
    Value().TypeTag(&kTypeTag);
    channel_ = std::move(channel);
    functions_ = std::move(init->functions);
    events_fd_ = init->events_fd;
    on_event_ = Napi::Persistent(init->on_event);
    auto buffer = Napi::ArrayBuffer::New(env, sizeof(WorkerRecord));
    record_ = static_cast<WorkerRecord*>(buffer.Data());
    buffer_ = Napi::Persistent(buffer);
    input_ = view_of(env, channel_->input_region());
    output_ = view_of(env, channel_->output_region());
    watchdog_ = std::make_unique<invocation::Watchdog>([this] { expire(); });
    watchdog_->wake();
    module_.workers.add(this);
    doors_.open(env, Value(), "next", next);
    doors_.open(env, Value(), "reply", reply);
    doors_.open(env, Value(), "replyNext", reply_next);
}

Worker::~Worker() {
    if (channel_) close(CloseReason::kEnvironmentEnd);
}

void Worker::close(CloseReason reason) {
    if (!channel_) return;
    module_.workers.remove(this);
    watcher_.stop();
    watchdog_.reset();
    if (reason == CloseReason::kAsked) {
        const Napi::HandleScope scope(Env());
        input_.Value().Detach();
        output_.Value().Detach();
    }
    on_event_.Reset();
    on_wake_.Reset();
    channel_.reset();
}

// ── the data path ───────────────────────────────────────────────────────────────────────────────
//
// The watchdog watches from the return of next() to the next call into this object: that is the
// time in which a function has the thread.

Worker* Worker::open_one(napi_env env, napi_callback_info info) {
    Worker* worker = Doors<Worker>::owner(env, info);
    return worker != nullptr && worker->channel_ ? worker : nullptr;
}

napi_value Worker::next(napi_env env, napi_callback_info info) {
    Worker* worker = open_one(env, info);
    if (worker == nullptr) return int32_value(env, -EBADF);
    worker->watchdog_->end();
    return int32_value(env, worker->next_slot());
}

napi_value Worker::reply(napi_env env, napi_callback_info info) {
    Worker* worker = open_one(env, info);
    return int32_value(env, worker == nullptr ? -EBADF : worker->reply_slot());
}

napi_value Worker::reply_next(napi_env env, napi_callback_info info) {
    Worker* worker = open_one(env, info);
    int rc = worker == nullptr ? -EBADF : worker->reply_slot();
    if (rc == 0) rc = worker->next_slot();
    return int32_value(env, rc);
}

int Worker::next_slot() {
    const int found = channel_->next(&call_, uint64_t{record_->budget_us} * 1000);
    if (found < 0) return found;
    if (found == 0) return -EAGAIN;
    record_->function = call_.function;
    record_->input_length = call_.input_length;
    record_->output_capacity = call_.output_capacity;
    record_->request_id = call_.request_id;
    record_->arrived_ms = static_cast<double>(call_.arrived_ns) / 1e6;
    record_->deadline_ms = std::numeric_limits<double>::infinity();
    if (call_.deadline_ns != 0) {
        record_->deadline_ms = static_cast<double>(call_.deadline_ns) / 1e6;
        watchdog_->begin(call_.deadline_ns);
    }
    return static_cast<int>(call_.slot);
}

int Worker::reply_slot() {
    if (record_->slot >= channel_->slots()) return -EBADF;
    watchdog_->end();
    channel_->reply(record_->slot, record_->length);
    return 0;
}

// Arguments: slot, status, text, whether the worker ends now.
void Worker::fail(const Napi::CallbackInfo& info) {
    const uint32_t slot = uint32_arg(info, 0);
    if (!channel_ || slot >= channel_->slots()) return;
    watchdog_->end();
    const auto status = static_cast<wire::CallStatus>(uint32_arg(info, 1));
    if (info[3].ToBoolean()) {
        channel_->fail_last(slot, status, string_arg(info, 2));
    } else {
        channel_->fail(slot, status, string_arg(info, 2));
    }
}

// ── waiting and ending ──────────────────────────────────────────────────────────────────────────

// Calls back once when next() may find a call; at once if it may now. Arguments: callback().
void Worker::watch(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!channel_) return throw_closed(env, "worker");
    watchdog_->end();
    int failed = watcher_.start(env, module_.handles, channel_->fd(), [this] { on_readable(); });
    if (failed == 0) failed = channel_->arm();
    if (failed != 0) return throw_fabric_error(env, failed, "watch", "worker");
    on_wake_ = Napi::Persistent(info[0].As<Napi::Function>());
    watchdog_->rest();
    watcher_.ref();
}

void Worker::on_readable() {
    channel_->acknowledge();
    watcher_.unref();
    if (on_wake_.IsEmpty()) return;
    watchdog_->wake();
    const Napi::FunctionReference callback = std::exchange(on_wake_, Napi::FunctionReference());
    module_.call(callback, {});
}

// Argument: the status of all requests from now on, kLeaseRevoked or kLeaseEnded.
void Worker::refuse(const Napi::CallbackInfo& info) {
    if (!channel_) return;
    watchdog_->end();
    channel_->refuse(static_cast<wire::CallStatus>(uint32_arg(info, 0)));
}

// Answers what has not started and waits until all answers are out. After refuse().
void Worker::settle(const Napi::CallbackInfo&) {
    if (!channel_) return;
    watchdog_->end();
    invocation::Call none;
    (void)channel_->next(&none, 0);
    channel_->settle();
}

// On the watchdog's thread, while a function keeps the other one: see invocation/watchdog.h.
void Worker::expire() {
    const std::string line =
        "{\"event\":\"timeout\",\"function\":" + json_string(functions_[call_.function]) +
        ",\"requestId\":\"" + std::to_string(call_.request_id) + "\"}\n";
    [[maybe_unused]] const ssize_t bytes = ::write(events_fd_, line.data(), line.size());
    channel_->fail_last(call_.slot, wire::CallStatus::kDeadline,
                        "the function ran past its deadline; its worker is being restarted");
    ::_exit(kTimedOut);
}

void Worker::emit(const char* event, const std::string& detail) {
    if (on_event_.IsEmpty()) return;
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    module_.call(on_event_, {Napi::String::New(env, event), Napi::String::New(env, detail)});
}

void Worker::connected(const std::string& peer) {
    emit("connected", peer);
}
void Worker::disconnected() {
    emit("disconnected", "");
}
void Worker::refused(const std::string& peer, std::string_view why) {
    emit("refused", std::string(why) + " (" + peer + ")");
}

// Past JavaScript: nothing there has to know.
void Worker::served(const std::string& line) {
    const std::string whole = line + "\n";
    [[maybe_unused]] const ssize_t bytes = ::write(events_fd_, whole.data(), whole.size());
}

Napi::Value Worker::record(const Napi::CallbackInfo&) {
    return buffer_.Value();
}
Napi::Value Worker::input(const Napi::CallbackInfo&) {
    return input_.Value();
}
Napi::Value Worker::output(const Napi::CallbackInfo&) {
    return output_.Value();
}

Napi::Value Worker::address(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), channel_ ? channel_->address() : "");
}

Napi::Value Worker::input_stride(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             channel_ ? static_cast<double>(channel_->input_stride()) : 0);
}

Napi::Value Worker::output_stride(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             channel_ ? static_cast<double>(channel_->output_stride()) : 0);
}

void Worker::close(const Napi::CallbackInfo&) {
    close(CloseReason::kAsked);
}

}  // namespace rfaas::addon
