#include "executor/package.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "core/unique_fd.h"
#include "executor/exports.h"

namespace rfaas::executor {

namespace {

// A file's bytes, read-only. It belongs to the executor manager: nobody makes it shorter meanwhile.
class MappedFile {
  public:
    explicit MappedFile(const std::string& path) {
        const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        struct stat status = {};
        if (!fd.valid() || ::fstat(fd.get(), &status) != 0) return;
        bytes_ = static_cast<size_t>(status.st_size);
        data_ = ::mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    }
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile() {
        if (valid()) ::munmap(data_, bytes_);
    }
    [[nodiscard]] bool valid() const { return data_ != MAP_FAILED; }
    [[nodiscard]] const uint8_t* data() const { return static_cast<const uint8_t*>(data_); }
    [[nodiscard]] size_t bytes() const { return bytes_; }

  private:
    void* data_ = MAP_FAILED;
    size_t bytes_ = 0;
};

bool read_table(const rfaas_function_table& table, std::vector<Function>* functions,
                std::string* reason) {
    if (table.abi != RFAAS_FUNCTION_ABI) {
        *reason = "it was built for version " + std::to_string(table.abi) +
                  " of rfaas/function.h; this worker has version " +
                  std::to_string(RFAAS_FUNCTION_ABI);
        return false;
    }
    if (table.count > kMaxFunctions) {
        *reason = "its function table has more than " + std::to_string(kMaxFunctions) + " entries";
        return false;
    }
    std::set<std::string> seen;
    for (uint32_t i = 0; i < table.count; ++i) {
        const rfaas_function_entry& entry = table.entries[i];
        const std::string name = entry.name == nullptr ? "" : entry.name;
        if (name.empty() || name.size() > kMaxName || entry.call == nullptr ||
            !seen.insert(name).second) {
            *reason = "entry " + std::to_string(i) + " of its function table, \"" + name +
                      "\", has no name, no function, a name of more than 127 bytes, or one that "
                      "is there twice";
            return false;
        }
        functions->push_back({name, entry.call, nullptr});
    }
    return true;
}

}  // namespace

bool load_package(const std::string& path, std::vector<Function>* functions, std::string* reason) {
    std::set<std::string> exports;
    {
        const MappedFile file(path);
        if (!file.valid()) {
            *reason = path + " cannot be read: " + std::strerror(errno);
            return false;
        }
        if (!read_exports(file.data(), file.bytes(), &exports, reason)) return false;
    }
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        *reason = ::dlerror();
        return false;
    }
    const auto* table =
        static_cast<const rfaas_function_table*>(::dlsym(library, "rfaas_functions"));
    if (table != nullptr) {
        if (!read_table(*table, functions, reason)) return false;
    } else {
        for (const std::string& name : exports) {
            void* symbol = ::dlsym(library, name.c_str());
            if (symbol != nullptr) {
                functions->push_back({name, nullptr, reinterpret_cast<LegacyFunction>(symbol)});
            }
        }
    }
    if (functions->empty() || functions->size() > kMaxFunctions) {
        *reason = functions->empty() ? "it exports no function" : "it exports too many functions";
        return false;
    }
    return true;
}

}  // namespace rfaas::executor
