#include "executor/package.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace rfaas::executor {

namespace {

constexpr size_t kMaxName = 127;
constexpr size_t kMaxFunctions = 65536;  // the wire's index has 16 bits

// The number of dynamic symbols is written in the old hash table; GNU's has to be walked to its
// end.
size_t symbol_count(const ElfW(Dyn) * dynamic) {
    const uint32_t* gnu = nullptr;
    for (const ElfW(Dyn)* entry = dynamic; entry->d_tag != DT_NULL; ++entry) {
        if (entry->d_tag == DT_HASH) return reinterpret_cast<const uint32_t*>(entry->d_un.d_ptr)[1];
        if (entry->d_tag == DT_GNU_HASH) {
            gnu = reinterpret_cast<const uint32_t*>(entry->d_un.d_ptr);
        }
    }
    if (gnu == nullptr) return 0;
    const uint32_t bucket_count = gnu[0];
    const uint32_t first = gnu[1];
    const uint32_t bloom_words = gnu[2];
    const uint32_t* buckets = gnu + 4 + bloom_words * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t* chains = buckets + bucket_count;
    uint32_t last = 0;
    for (uint32_t i = 0; i < bucket_count; ++i) last = std::max(last, buckets[i]);
    if (last < first) return first;
    while ((chains[last - first] & 1) == 0) ++last;
    return last + 1;
}

// All functions that the library itself defines and exports.
std::set<std::string> exported_functions(void* library) {
    std::set<std::string> names;
    link_map* map = nullptr;
    if (::dlinfo(library, RTLD_DI_LINKMAP, &map) != 0) return names;
    const ElfW(Sym)* symbols = nullptr;
    const char* strings = nullptr;
    for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
        if (entry->d_tag == DT_SYMTAB) {
            symbols = reinterpret_cast<const ElfW(Sym)*>(entry->d_un.d_ptr);
        } else if (entry->d_tag == DT_STRTAB) {
            strings = reinterpret_cast<const char*>(entry->d_un.d_ptr);
        }
    }
    if (symbols == nullptr || strings == nullptr) return names;
    const size_t count = symbol_count(map->l_ld);
    for (size_t i = 1; i < count; ++i) {
        const ElfW(Sym)& symbol = symbols[i];
        const unsigned visibility = ELF64_ST_VISIBILITY(symbol.st_other);
        if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF ||
            ELF64_ST_BIND(symbol.st_info) == STB_LOCAL ||
            (visibility != STV_DEFAULT && visibility != STV_PROTECTED)) {
            continue;
        }
        const std::string name = strings + symbol.st_name;
        if (name != "_init" && name != "_fini" && name.size() <= kMaxName) names.insert(name);
    }
    return names;
}

bool read_table(const rfaas_function_table& table, std::vector<Function>* functions,
                std::string* reason) {
    if (table.abi != RFAAS_FUNCTION_ABI) {
        *reason = "it was built for version " + std::to_string(table.abi) +
                  " of rfaas/function.h; this worker has version " +
                  std::to_string(RFAAS_FUNCTION_ABI);
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
        for (const std::string& name : exported_functions(library)) {
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
