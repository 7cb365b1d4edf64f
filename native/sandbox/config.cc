#include "sandbox/config.h"

#include <charconv>
#include <climits>

namespace rfaas::sandbox {

namespace {

constexpr const char* kLayerNames[kLayerCount] = {"user",    "mount",      "pid",     "ipc",
                                                  "network", "privileges", "seccomp", "landlock",
                                                  "rlimits", "cgroup"};

template <typename T>
bool parse_number(std::string_view text, T least, T most, T* out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
    return error == std::errc() && end == text.data() + text.size() && *out >= least &&
           *out <= most;
}

bool parse_switch(std::string_view text, bool* out) {
    *out = text == "1";
    return text == "0" || text == "1";
}

bool parse_layer(std::string_view name, uint32_t* layers) {
    for (uint32_t i = 0; i < kLayerCount; ++i) {
        if (name != kLayerNames[i]) continue;
        *layers |= 1U << i;
        return true;
    }
    return false;
}

// Absolute, and says by its text alone where it leads: no empty, `.` or `..` component, no root.
bool plain_path(std::string_view path) {
    if (path.size() < 2 || path.size() >= PATH_MAX || path.front() != '/') return false;
    if (path.find('\0') != std::string_view::npos) return false;
    for (size_t begin = 1; begin <= path.size();) {
        const size_t end = std::min(path.find('/', begin), path.size());
        const std::string_view part = path.substr(begin, end - begin);
        if (part.empty() || part == "." || part == "..") return false;
        begin = end + 1;
    }
    return true;
}

bool add_path(std::string_view path, std::vector<std::string>* paths) {
    if (!plain_path(path)) return false;
    paths->emplace_back(path);
    return true;
}

constexpr int64_t kMaxId = UINT32_MAX - 1;  // the last one means "none" to the kernel

bool apply(std::string_view key, std::string_view value, Config* config) {
    if (key == "layer") return parse_layer(value, &config->layers);
    if (key == "uid") return parse_number<int64_t>(value, 1, kMaxId, &config->uid);
    if (key == "read") return add_path(value, &config->read);
    if (key == "write") return add_path(value, &config->write);
    if (key == "device") return add_path(value, &config->device);
    if (key == "cgroup") return add_path(value, &config->cgroups);
    if (key == "socket") return plain_path(config->socket = value);
    if (key == "network") return parse_switch(value, &config->network);
    return key == "rdma" && parse_switch(value, &config->rdma);
}

bool apply(std::string_view key, std::string_view value, Assignment* assignment) {
    if (key == "core") return parse_number(value, 0, INT_MAX, &assignment->core);
    if (key == "package") return add_path(value, &assignment->package);
    if (key == "socket_owner") {
        return parse_number<int64_t>(value, 0, kMaxId, &assignment->socket_owner);
    }
    uint64_t* number = key == "tmp_bytes"      ? &assignment->tmp_bytes
                       : key == "data_bytes"   ? &assignment->data_bytes
                       : key == "file_bytes"   ? &assignment->file_bytes
                       : key == "locked_bytes" ? &assignment->locked_bytes
                       : key == "processes"    ? &assignment->processes
                       : key == "files"        ? &assignment->files
                                               : nullptr;
    return number != nullptr && parse_number<uint64_t>(value, 1, INT64_MAX, number);
}

template <typename Part>
bool parse_lines(std::string_view text, Part* part, std::string* reason) {
    while (!text.empty()) {
        const size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        const size_t equals = line.find('=');
        // A last line without an end may have been cut off.
        if (end == std::string_view::npos || equals == std::string_view::npos ||
            !apply(line.substr(0, equals), line.substr(equals + 1), part)) {
            *reason = "the configuration has a bad or unknown line: ";
            *reason += line.substr(0, 200);
            return false;
        }
        text.remove_prefix(end + 1);
    }
    return true;
}

}  // namespace

const char* layer_name(Layer layer) {
    return kLayerNames[__builtin_ctz(layer)];
}

bool parse_config(std::string_view text, Config* config, std::string* reason) {
    return parse_lines(text, config, reason);
}

bool parse_assignment(std::string_view text, Assignment* assignment, std::string* reason) {
    return parse_lines(text, assignment, reason);
}

}  // namespace rfaas::sandbox
