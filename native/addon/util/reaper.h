// Who closes whom. A parent knows its open children and closes them before itself; what is still
// open when the environment ends is closed by the same way.
#pragma once

#include <set>
#include <type_traits>

namespace rfaas::addon {

// kEnvironmentEnd: no JavaScript may run or be touched any more.
enum class CloseReason { kAsked, kEnvironmentEnd };

class Closable {
  public:
    virtual ~Closable() = default;
    Closable() = default;
    Closable(const Closable&) = delete;
    Closable& operator=(const Closable&) = delete;
    virtual void close(CloseReason reason) = 0;  // idempotent; leaves the parent's Reaper
};
static_assert(!std::is_copy_constructible_v<Closable>);

class Reaper {
  public:
    void add(Closable* child) { open_.insert(child); }
    void remove(Closable* child) { open_.erase(child); }
    // One by one from the set, because closing a child may close others of it.
    void close_all(CloseReason reason) {
        while (!open_.empty()) {
            Closable* child = *open_.begin();
            open_.erase(open_.begin());
            child->close(reason);
        }
    }

  private:
    std::set<Closable*> open_;
};

}  // namespace rfaas::addon
