#include "executor/config.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>

namespace rfaas::executor {

namespace {

constexpr size_t kMaxLine = 8192;

template <typename T>
bool parse_number(const std::string& text, T* out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
    return error == std::errc() && end == text.data() + text.size();
}

bool parse_ticket(const std::string& hex, uint8_t (&ticket)[wire::kTicketBytes]) {
    if (hex.size() != 2 * wire::kTicketBytes) return false;
    for (size_t i = 0; i < wire::kTicketBytes; ++i) {
        const char* digits = hex.data() + 2 * i;
        const auto [end, error] = std::from_chars(digits, digits + 2, ticket[i], 16);
        if (error != std::errc() || end != digits + 2) return false;
    }
    return true;
}

bool apply(const std::string& key, const std::string& value, Config* config) {
    invocation::WorkerOptions& channel = config->channel;
    if (key == "provider")
        channel.provider = value;
    else if (key == "device")
        channel.device = value;
    else if (key == "address")
        channel.address = value;
    else if (key == "package")
        config->package = value;
    else if (key == "ticket")
        return parse_ticket(value, channel.ticket);
    else if (key == "slots")
        return parse_number(value, &channel.slots);
    else if (key == "payload_bytes")
        return parse_number(value, &channel.payload_bytes);
    else if (key == "output_bytes")
        return parse_number(value, &channel.output_bytes);
    else if (key == "hot_timeout_us")
        return parse_number(value, &config->hot_timeout_us);
    else if (key == "started_fd")
        return parse_number(value, &channel.started_fd);
    else if (key == "worker")
        return parse_number(value, &config->worker);
    else
        return false;
    return true;
}

}  // namespace

bool read_config(int fd, Config* config, std::string* rest, std::string* reason) {
    rest->clear();
    for (;;) {
        const size_t end = rest->find('\n');
        if (end == std::string::npos && rest->size() <= kMaxLine) {
            char block[4096];
            const ssize_t count = ::read(fd, block, sizeof block);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) {
                *reason = "the configuration on stdin ended early";
                return false;
            }
            rest->append(block, static_cast<size_t>(count));
            continue;
        }
        const std::string line = rest->substr(0, end);
        rest->erase(0, line.size() + 1);
        if (line.empty()) return true;
        const size_t equals = line.find('=');
        const std::string key = line.substr(0, equals);
        if (line.size() > kMaxLine || equals == std::string::npos ||
            !apply(key, line.substr(equals + 1), config)) {
            *reason = "the configuration on stdin has a bad or unknown line: " +
                      (key == "ticket" ? key : line.substr(0, 200));
            return false;
        }
    }
}

}  // namespace rfaas::executor
