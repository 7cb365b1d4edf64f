// How the functions of a data path find the object that they belong to: their data leads there. As
// methods they would have to unwrap `this`, which costs as much as all the rest of the crossing. A
// program may keep a function longer than the object: the door stays, and leads nowhere.
#pragma once

#include <napi.h>
#include <memory>

namespace rfaas::addon {

template <typename Owner>
class Doors {
  public:
    explicit Doors(Owner* owner) : owner_(std::make_shared<Owner*>(owner)) {}
    ~Doors() { *owner_ = nullptr; }
    Doors(const Doors&) = delete;
    Doors& operator=(const Doors&) = delete;

    // Gives `object`, which is the owner's, a function of its own.
    void open(Napi::Env env, Napi::Object object, const char* name, napi_callback callback) const {
        auto* data = new std::shared_ptr<Owner*>(owner_);
        napi_value function = nullptr;
        napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, data, &function);
        const auto release = [](napi_env, void* kept, void*) {
            delete static_cast<std::shared_ptr<Owner*>*>(kept);
        };
        napi_add_finalizer(env, function, data, release, nullptr, nullptr);
        object.DefineProperty(Napi::PropertyDescriptor::Value(name, function, napi_configurable));
    }

    // In such a function: the owner, or null.
    static Owner* owner(napi_env env, napi_callback_info info) {
        void* data = nullptr;
        napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
        return **static_cast<std::shared_ptr<Owner*>*>(data);
    }

  private:
    std::shared_ptr<Owner*> owner_;
};

}  // namespace rfaas::addon
