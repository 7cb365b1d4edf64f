#include "executor/exports.h"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace rfaas::executor {

namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#else
#error "which machine of elf.h is this?"
#endif

// Every offset and count in it was written by somebody else: nothing is read that is not inside.
class Image {
  public:
    Image(const uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}

    [[nodiscard]] bool holds(uint64_t offset, uint64_t length) const {
        return offset <= bytes_ && length <= bytes_ - offset;
    }

    template <typename T>
    [[nodiscard]] bool read(uint64_t offset, T* out) const {
        if (!holds(offset, sizeof(T))) return false;
        std::memcpy(out, data_ + offset, sizeof(T));
        return true;
    }

    // The segments; false when they are not all here.
    [[nodiscard]] bool read_segments(const ElfW(Ehdr) & header) {
        for (uint64_t i = 0; i < header.e_phnum; ++i) {
            ElfW(Phdr) segment;
            if (!holds(header.e_phoff, 0) || !read(header.e_phoff + i * sizeof segment, &segment)) {
                return false;
            }
            if (segment.p_type != PT_LOAD && segment.p_type != PT_DYNAMIC) continue;
            if (!holds(segment.p_offset, segment.p_filesz)) return false;
            if (segment.p_type == PT_LOAD) loaded_.push_back(segment);
            if (segment.p_type == PT_DYNAMIC) dynamic_ = segment;
        }
        return true;
    }

    // Where in the file the bytes are that will be at `address`; false: in none of its segments.
    [[nodiscard]] bool locate(uint64_t address, uint64_t* offset) const {
        for (const ElfW(Phdr) & segment : loaded_) {
            const uint64_t inside = address - segment.p_vaddr;
            if (address < segment.p_vaddr || inside >= segment.p_filesz) continue;
            *offset = segment.p_offset + inside;
            return true;
        }
        return false;
    }

    // The value of a dynamic entry. False: there is none of this tag.
    [[nodiscard]] bool find(ElfW(Sxword) tag, uint64_t* value) const {
        ElfW(Dyn) entry = {};
        for (uint64_t at = 0; at + sizeof entry <= dynamic_.p_filesz; at += sizeof entry) {
            if (!read(dynamic_.p_offset + at, &entry) || entry.d_tag == DT_NULL) return false;
            if (entry.d_tag != tag) continue;
            *value = entry.d_un.d_val;
            return true;
        }
        return false;
    }
    [[nodiscard]] bool find_place(ElfW(Sxword) tag, uint64_t* offset) const {
        uint64_t address = 0;
        return find(tag, &address) && locate(address, offset);
    }

    // False: it does not end where the strings do.
    [[nodiscard]] bool read_name(uint64_t strings, uint64_t strings_bytes, uint64_t index,
                                 std::string* name) const {
        if (index >= strings_bytes || !holds(strings, strings_bytes)) return false;
        const auto* begin = reinterpret_cast<const char*>(data_) + strings + index;
        const auto* end = static_cast<const char*>(std::memchr(begin, 0, strings_bytes - index));
        if (end == nullptr) return false;
        name->assign(begin, end);
        return true;
    }

  private:
    const uint8_t* data_;
    size_t bytes_;
    std::vector<ElfW(Phdr)> loaded_;
    ElfW(Phdr) dynamic_ = {};
};

// The number of dynamic symbols is written in the old hash table; GNU's has to be walked to its
// end. False: neither is here, or whole.
bool count_symbols(const Image& image, uint64_t* count) {
    uint64_t table = 0;
    uint32_t words[4] = {};
    if (image.find_place(DT_HASH, &table)) {
        if (!image.read(table + sizeof(uint32_t), words)) return false;
        *count = words[0];
        return true;
    }
    if (!image.find_place(DT_GNU_HASH, &table) || !image.read(table, &words)) return false;
    const auto [bucket_count, first, bloom_words, shift] = words;
    const uint64_t buckets = table + sizeof words + uint64_t{bloom_words} * sizeof(ElfW(Addr));
    const uint64_t chains = buckets + uint64_t{bucket_count} * sizeof(uint32_t);
    if (!image.holds(table, chains - table)) return false;
    uint32_t last = 0;
    for (uint64_t i = 0; i < bucket_count; ++i) {
        uint32_t bucket = 0;
        if (!image.read(buckets + i * sizeof bucket, &bucket)) return false;
        last = std::max(last, bucket);
    }
    *count = first;
    if (last < first) return true;
    for (*count = last;; ++*count) {
        uint32_t chain = 0;
        if (!image.read(chains + (*count - first) * sizeof chain, &chain)) return false;
        if ((chain & 1) != 0) break;  // the last of its bucket
    }
    ++*count;
    return true;
}

bool is_exported_function(const ElfW(Sym) & symbol) {
    const unsigned visibility = ELF64_ST_VISIBILITY(symbol.st_other);
    return ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != SHN_UNDEF &&
           ELF64_ST_BIND(symbol.st_info) != STB_LOCAL &&
           (visibility == STV_DEFAULT || visibility == STV_PROTECTED);
}

bool read_symbols(const Image& image, std::set<std::string>* names) {
    uint64_t symbols = 0;
    uint64_t strings = 0;
    uint64_t strings_bytes = 0;
    uint64_t count = 0;
    if (!image.find_place(DT_SYMTAB, &symbols) || !image.find_place(DT_STRTAB, &strings) ||
        !image.find(DT_STRSZ, &strings_bytes) || !count_symbols(image, &count)) {
        return false;
    }
    for (uint64_t i = 1; i < count && names->size() <= kMaxFunctions; ++i) {
        ElfW(Sym) symbol;
        std::string name;
        if (!image.read(symbols + i * sizeof symbol, &symbol)) return false;
        if (!is_exported_function(symbol)) continue;
        if (!image.read_name(strings, strings_bytes, symbol.st_name, &name)) return false;
        if (name != "_init" && name != "_fini" && name.size() <= kMaxName) names->insert(name);
    }
    return true;
}

}  // namespace

bool read_exports(const uint8_t* file, size_t bytes, std::set<std::string>* names,
                  std::string* reason) {
    Image image(file, bytes);
    ElfW(Ehdr) header = {};
    if (!image.read(0, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
        *reason = "it is no shared library (it has no ELF header)";
        return false;
    }
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != kMachine || header.e_type != ET_DYN ||
        header.e_phentsize != sizeof(ElfW(Phdr))) {
        *reason = "it is no shared library for this machine (ELF type " +
                  std::to_string(header.e_type) + ", machine " + std::to_string(header.e_machine) +
                  "): build it here with -shared -fPIC";
        return false;
    }
    if (!image.read_segments(header)) {
        *reason = "its file is cut off or damaged: a segment lies behind its " +
                  std::to_string(bytes) + " bytes";
        return false;
    }
    if (!read_symbols(image, names)) {
        *reason = "its table of symbols is damaged or missing";
        return false;
    }
    return true;
}

}  // namespace rfaas::executor
