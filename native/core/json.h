#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace rfaas {

// `text` as a JSON string. Bytes that are not UTF-8 pass through: the reader decides.
inline std::string json_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned char>(c));
            out += escape;
        } else {
            out += c;
        }
    }
    return out + '"';
}

}  // namespace rfaas
