// The only use of libuv: descriptors watched, and turns taken and counted, on the loop of one
// JavaScript environment. Node-API does not promise a stable libuv, so nothing else may include
// <uv.h>.
#pragma once

#include <node_api.h>
#include <uv.h>
#include <functional>
#include <utility>

namespace rfaas::addon {

// Handles that libuv still owns. An environment may not go away before the count is 0: its loop
// would be closed with open handles in it. `on_idle` runs when the last one is gone.
class OpenHandles {
  public:
    void opened() { ++count_; }
    void closed() {
        if (--count_ == 0 && on_idle_) std::exchange(on_idle_, nullptr)();
    }
    void when_idle(std::function<void()> run) {
        if (count_ == 0) return run();
        on_idle_ = std::move(run);
    }

  private:
    uint32_t count_ = 0;
    std::function<void()> on_idle_;
};

// Watches one descriptor until stop(), which must come before the descriptor is closed. Starts
// without a reference: it keeps the process alive only between ref() and unref(), that is, while
// somebody waits.
class FdWatcher {
  public:
    FdWatcher() = default;
    ~FdWatcher() { stop(); }
    FdWatcher(const FdWatcher&) = delete;
    FdWatcher& operator=(const FdWatcher&) = delete;

    // `ready` runs on the loop's thread each time that the descriptor is found readable; it may
    // stop the watcher. Returns 0 or a negative errno.
    [[nodiscard]] int start(napi_env env, OpenHandles& handles, int fd,
                            std::function<void()> ready) {
        if (watch_ != nullptr) return 0;
        uv_loop_t* loop = nullptr;
        if (napi_get_uv_event_loop(env, &loop) != napi_ok) return UV_ENOSYS;
        auto* watch = new Watch{{}, &handles, std::move(ready)};
        watch->poll.data = watch;
        if (const int failed = uv_poll_init(loop, &watch->poll, fd); failed != 0) {
            delete watch;
            return failed;
        }
        handles.opened();
        watch_ = watch;
        uv_unref(reinterpret_cast<uv_handle_t*>(&watch->poll));
        const int failed = uv_poll_start(&watch->poll, UV_READABLE, [](uv_poll_t* poll, int, int) {
            // A copy, because the callback may stop the watcher that owns it.
            const auto run = static_cast<Watch*>(poll->data)->ready;
            run();
        });
        if (failed != 0) stop();
        return failed;
    }

    void stop() {
        if (watch_ == nullptr) return;
        Watch* watch = std::exchange(watch_, nullptr);
        uv_poll_stop(&watch->poll);  // leaves epoll at once, so that the fd may be closed
        uv_close(reinterpret_cast<uv_handle_t*>(&watch->poll), [](uv_handle_t* handle) {
            auto* closed = static_cast<Watch*>(handle->data);
            OpenHandles* handles = closed->handles;
            delete closed;
            handles->closed();
        });
    }

    [[nodiscard]] bool active() const { return watch_ != nullptr; }
    void ref() {
        if (watch_ != nullptr) uv_ref(reinterpret_cast<uv_handle_t*>(&watch_->poll));
    }
    void unref() {
        if (watch_ != nullptr) uv_unref(reinterpret_cast<uv_handle_t*>(&watch_->poll));
    }

  private:
    struct Watch {
        uv_poll_t poll;
        OpenHandles* handles;
        std::function<void()> ready;
    };
    Watch* watch_ = nullptr;
};

// Runs a function in every turn of the loop, and keeps the loop turning, until stop().
class LoopTurner {
  public:
    LoopTurner() = default;
    ~LoopTurner() { close(); }
    LoopTurner(const LoopTurner&) = delete;
    LoopTurner& operator=(const LoopTurner&) = delete;

    // `turn` may stop or close the turner. The first call makes the handle, later ones restart it.
    [[nodiscard]] int start(napi_env env, OpenHandles& handles, std::function<void()> turn) {
        if (turns_ == nullptr) {
            uv_loop_t* loop = nullptr;
            if (napi_get_uv_event_loop(env, &loop) != napi_ok) return UV_ENOSYS;
            turns_ = new Turns{{}, &handles, std::move(turn)};
            turns_->idle.data = turns_;
            uv_idle_init(loop, &turns_->idle);  // cannot fail
            handles.opened();
        }
        return uv_idle_start(&turns_->idle, [](uv_idle_t* idle) {
            const auto run = static_cast<Turns*>(idle->data)->turn;
            run();
        });
    }

    void stop() {
        if (turns_ != nullptr) uv_idle_stop(&turns_->idle);
    }

    void close() {
        if (turns_ == nullptr) return;
        Turns* turns = std::exchange(turns_, nullptr);
        uv_close(reinterpret_cast<uv_handle_t*>(&turns->idle), [](uv_handle_t* handle) {
            auto* closed = static_cast<Turns*>(handle->data);
            OpenHandles* handles = closed->handles;
            delete closed;
            handles->closed();
        });
    }

  private:
    struct Turns {
        uv_idle_t idle;
        OpenHandles* handles;
        std::function<void()> turn;
    };
    Turns* turns_ = nullptr;
};

// Counts the turns of the loop; keeps nothing alive.
class LoopCounter {
  public:
    LoopCounter() = default;
    ~LoopCounter() { close(); }
    LoopCounter(const LoopCounter&) = delete;
    LoopCounter& operator=(const LoopCounter&) = delete;

    [[nodiscard]] int start(napi_env env, OpenHandles& handles) {
        uv_loop_t* loop = nullptr;
        if (napi_get_uv_event_loop(env, &loop) != napi_ok) return UV_ENOSYS;
        count_ = new Count{{}, &handles, 0};
        count_->prepare.data = count_;
        uv_prepare_init(loop, &count_->prepare);  // cannot fail
        uv_unref(reinterpret_cast<uv_handle_t*>(&count_->prepare));
        handles.opened();
        return uv_prepare_start(&count_->prepare, [](uv_prepare_t* prepare) {
            ++static_cast<Count*>(prepare->data)->turns;
        });
    }

    [[nodiscard]] uint64_t turns() const { return count_ == nullptr ? 0 : count_->turns; }

    void close() {
        if (count_ == nullptr) return;
        Count* count = std::exchange(count_, nullptr);
        uv_close(reinterpret_cast<uv_handle_t*>(&count->prepare), [](uv_handle_t* handle) {
            auto* closed = static_cast<Count*>(handle->data);
            OpenHandles* handles = closed->handles;
            delete closed;
            handles->closed();
        });
    }

  private:
    struct Count {
        uv_prepare_t prepare;
        OpenHandles* handles;
        uint64_t turns;
    };
    Count* count_ = nullptr;
};

}  // namespace rfaas::addon
