// Addresses: "10.0.0.1:7000" and "[fd00::1]:7000", and which one a peer can use.
#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include <cstring>
#include <set>

#include "fabric/verbs/verbs.h"

namespace rfaas::fabric::verbs {

namespace {

// Used entries of a device's tables: a few for each IP address of its interfaces.
constexpr size_t kMaxGids = 1024;

uint16_t* port_of(sockaddr* address) {
    return address->sa_family == AF_INET6 ? &reinterpret_cast<sockaddr_in6*>(address)->sin6_port
                                          : &reinterpret_cast<sockaddr_in*>(address)->sin_port;
}

// Names of the interfaces that carry the port. On RoCE each GID belongs to one; an InfiniBand port
// has its IPoIB interfaces, which are children of the device.
std::set<std::string> interfaces_of(ibv_context* context, uint8_t port) {
    std::set<std::string> names;
    std::vector<ibv_gid_entry> entries(kMaxGids);
    const ssize_t count = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
    for (ssize_t i = 0; i < count; ++i) {  // -1 on failure: no names from here
        char name[IF_NAMESIZE] = {};
        if (entries[i].port_num == port && entries[i].ndev_ifindex != 0 &&
            ::if_indextoname(entries[i].ndev_ifindex, name) != nullptr) {
            names.insert(name);
        }
    }
    const std::string folder = std::string("/sys/class/infiniband/") +
                               ibv_get_device_name(context->device) + "/device/net";
    if (DIR* children = names.empty() ? ::opendir(folder.c_str()) : nullptr; children != nullptr) {
        while (const dirent* entry = ::readdir(children)) {
            if (entry->d_name[0] != '.') names.insert(entry->d_name);
        }
        ::closedir(children);
    }
    return names;
}

bool usable(const sockaddr* address, int family) {
    if (address == nullptr || address->sa_family != family) return false;
    if (family == AF_INET) return true;
    // Link-local addresses mean something else on every host.
    return !IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

}  // namespace

int parse_address(std::string_view text, Address* out) {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return -EINVAL;
    std::string_view host = text.substr(0, colon);
    const std::string port(text.substr(colon + 1));
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (host.empty() || port.empty() || port.size() > 5) return -EINVAL;
    if (port.find_first_not_of("0123456789") != std::string::npos) return -EINVAL;
    const unsigned long number = std::stoul(port);
    if (number > 65535) return -EINVAL;

    addrinfo hints = {};
    hints.ai_family = bracketed ? AF_INET6 : AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST;  // never asks a name server, which would block
    addrinfo* found = nullptr;
    if (::getaddrinfo(std::string(host).c_str(), nullptr, &hints, &found) != 0) return -EINVAL;
    std::memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
    ::freeaddrinfo(found);
    *port_of(out->get()) = htons(static_cast<uint16_t>(number));
    return 0;
}

std::string format_address(const sockaddr* address) {
    char host[NI_MAXHOST] = {};
    char port[NI_MAXSERV] = {};
    const bool six = address->sa_family == AF_INET6;
    const socklen_t size = six ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    if (::getnameinfo(address, size, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "unknown";
    }
    return six ? std::string("[") + host + "]:" + port : std::string(host) + ":" + port;
}

bool is_wildcard(const sockaddr* address) {
    if (address->sa_family == AF_INET6) {
        return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
    }
    return reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

int replace_wildcard(ibv_context* context, uint8_t port, Address* address) {
    const std::set<std::string> interfaces = interfaces_of(context, port);
    const int family = address->get()->sa_family;
    const uint16_t number = *port_of(address->get());
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return -errno;
    int rc = -EADDRNOTAVAIL;
    for (const ifaddrs* entry = all; entry != nullptr && rc != 0; entry = entry->ifa_next) {
        if (!usable(entry->ifa_addr, family) || !interfaces.contains(entry->ifa_name)) continue;
        std::memcpy(&address->storage, entry->ifa_addr,
                    family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
        *port_of(address->get()) = number;
        rc = 0;
    }
    ::freeifaddrs(all);
    return rc;
}

}  // namespace rfaas::fabric::verbs
