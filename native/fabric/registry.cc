// Finding providers: shm is part of this binary, verbs is a plugin beside it.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "fabric/fabric.h"
#include "fabric/shm/shm.h"

namespace rfaas::fabric {

namespace {

namespace fs = std::filesystem;

constexpr char kPluginFile[] = "rfaas_verbs.so";

// The folder of the addon or executable that this code is in.
fs::path own_folder() {
    Dl_info info = {};
    void* extra = nullptr;
    std::error_code error;
    fs::path file;
    if (::dladdr1(reinterpret_cast<const void*>(&own_folder), &info, &extra, RTLD_DL_LINKMAP) !=
        0) {
        const auto* object = static_cast<const link_map*>(extra);
        // The main program has no name in the link map, and what argv[0] says may be anything.
        const bool program = object == nullptr || object->l_name == nullptr || !*object->l_name;
        file = fs::canonical(program ? "/proc/self/exe" : object->l_name, error);
    }
    return error ? fs::path() : file.parent_path();
}

struct Plugin {
    Provider* provider = nullptr;
    int error = 0;
    std::string reason;
};

Plugin load_plugin() {
    const fs::path file = own_folder() / kPluginFile;
    if (::access(file.c_str(), F_OK) != 0) {
        return {nullptr, -ENOENT,
                "built without verbs: " + file.string() +
                    " does not exist. Install rdma-core's headers (Debian: apt-get install "
                    "libibverbs-dev librdmacm-dev), then `npm rebuild rfaas`"};
    }
    // Its symbols stay its own; it is never unloaded, because its objects are everywhere by then.
    void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) {
        const char* message = ::dlerror();
        return {nullptr, -ELIBACC,
                std::string("cannot load the verbs plugin: ") + (message ? message : "unknown") +
                    " (Debian: apt-get install libibverbs1 librdmacm1 ibverbs-providers)"};
    }
    const auto entry = reinterpret_cast<ProviderEntry>(::dlsym(library, kProviderEntry));
    Provider* provider = entry != nullptr ? entry(kProviderAbi) : nullptr;
    if (provider == nullptr) {
        return {nullptr, -ELIBBAD,
                file.string() + " is not of this version of rfaas (it does not know provider ABI " +
                    std::to_string(kProviderAbi) + "): `npm rebuild rfaas`"};
    }
    return {provider, 0, {}};
}

const Plugin& verbs_plugin() {
    static const Plugin plugin = load_plugin();
    return plugin;
}

ProviderStatus status_of(Provider* provider) {
    ProviderStatus status;
    status.name = provider->name();
    const int rc = provider->devices(&status.devices, &status.reason);
    status.available = rc == 0 && !status.devices.empty();
    if (status.available) {
        status.reason.clear();
    } else if (status.reason.empty()) {
        status.reason = rc == 0 ? "no device" : std::strerror(-rc);
    }
    return status;
}

}  // namespace

std::vector<ProviderStatus> providers() {
    std::vector<ProviderStatus> all;
    all.push_back(status_of(shm_provider()));
    const Plugin& verbs = verbs_plugin();
    if (verbs.provider != nullptr) {
        all.push_back(status_of(verbs.provider));
    } else {
        all.push_back({"verbs", false, verbs.reason, {}});
    }
    return all;
}

int open_device(std::string_view provider, std::string_view name, std::unique_ptr<Device>* out,
                std::string* reason) {
    reason->clear();
    Provider* found = nullptr;
    if (provider == "shm") {
        found = shm_provider();
    } else if (provider == "verbs") {
        const Plugin& verbs = verbs_plugin();
        if (verbs.provider == nullptr) {
            *reason = verbs.reason;
            return verbs.error;
        }
        found = verbs.provider;
    } else {
        *reason = "no provider is called \"" + std::string(provider) + "\": shm and verbs are";
        return -ENOENT;
    }
    const int rc = found->open(name, out, reason);
    if (rc != 0 && reason->empty()) *reason = std::strerror(-rc);
    return rc;
}

}  // namespace rfaas::fabric
