// Which providers there are: shm is linked in, verbs is a plugin beside the binary that contains
// this code, so that neither the addon nor the executor needs libibverbs to start.
#include <dlfcn.h>

#include <cstring>
#include <mutex>

#include "fabric/fabric.h"
#include "fabric/shm/shm.h"

namespace rfaas::fabric {

namespace {

constexpr char kPlugin[] = "rfaas_verbs.so";
constexpr char kInstallHint[] =
    " (Debian: apt-get install rdma-core libibverbs-dev librdmacm-dev, then: npm rebuild rfaas)";

struct Plugin {
    Provider* provider = nullptr;
    std::string reason;
};

std::string plugin_path() {
    Dl_info self = {};
    if (::dladdr(reinterpret_cast<const void*>(&plugin_path), &self) == 0) return kPlugin;
    const std::string binary = self.dli_fname;
    const size_t slash = binary.rfind('/');
    return slash == std::string::npos ? std::string("./") + kPlugin
                                      : binary.substr(0, slash + 1) + kPlugin;
}

const Plugin& verbs_plugin() {
    static Plugin plugin;
    static std::once_flag once;
    std::call_once(once, [] {
        void* library = ::dlopen(plugin_path().c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            const char* error = ::dlerror();
            plugin.reason = std::string(error) + kInstallHint;
            return;
        }
        const auto entry = reinterpret_cast<ProviderEntry>(::dlsym(library, kProviderEntry));
        plugin.provider = entry == nullptr ? nullptr : entry(kProviderAbi);
        if (plugin.provider == nullptr) {
            plugin.reason = std::string(kPlugin) +
                            " belongs to another version of rfaas (run: npm rebuild rfaas)";
        }
    });
    return plugin;
}

Provider* find(std::string_view name, std::string* reason) {
    if (name == "shm") return shm_provider();
    if (name == "verbs") {
        const Plugin& plugin = verbs_plugin();
        *reason = plugin.reason;
        return plugin.provider;
    }
    *reason = "no such provider; there are shm and verbs";
    return nullptr;
}

}  // namespace

std::vector<ProviderStatus> providers() {
    std::vector<ProviderStatus> result;
    for (const char* name : {"shm", "verbs"}) {
        ProviderStatus status;
        status.name = name;
        Provider* provider = find(name, &status.reason);
        if (provider != nullptr) {
            status.available = provider->devices(&status.devices, &status.reason) >= 0;
        }
        result.push_back(std::move(status));
    }
    return result;
}

int open_device(std::string_view provider, std::string_view name, std::unique_ptr<Device>* out,
                std::string* reason) {
    Provider* found = find(provider, reason);
    return found == nullptr ? -ENODEV : found->open(name, out, reason);
}

}  // namespace rfaas::fabric
