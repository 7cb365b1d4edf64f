// A peer that speaks the shm provider's socket itself and can write any byte of what it shares:
// what the tests and the fuzz targets of hostile peers are written with.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/unique_fd.h"
#include "fabric/shm/shm.h"
#include "fabric/shm/shm_layout.h"

namespace rfaas::fabric::shm {

// The stranger's own resources: without them there is nothing to test.
inline void must(bool held) {
    if (!held) std::abort();
}

inline sockaddr_un name_of(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    must(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

inline UniqueFd connect_raw(const std::string& path) {
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const sockaddr_un address = name_of(path);
    must(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return socket;
}

// A socket that is not the provider's and takes its clients.
inline UniqueFd listen_raw(const std::string& path) {
    UniqueFd door(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const sockaddr_un address = name_of(path);
    must(::bind(door.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    must(::listen(door.get(), 8) == 0);
    return door;
}

// False: the other end does not listen any more, or its socket is full.
inline bool send_raw(int socket, const void* data, size_t bytes, const std::vector<int>& fds = {}) {
    iovec part = {const_cast<void*>(data), bytes};
    std::array<char, CMSG_SPACE(sizeof(int) * 16)> control = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
        cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
        std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
    }
    return ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(bytes);
}

inline bool receive_raw(int socket, Message* message, std::vector<UniqueFd>* fds, int flags = 0) {
    iovec part = {message, sizeof *message};
    std::array<char, CMSG_SPACE(sizeof(int) * 4)> control = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    if (::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | flags) != sizeof *message) return false;
    for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr;
         rights = CMSG_NXTHDR(&header, rights)) {
        const size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(rights) + i * sizeof fd, sizeof fd);
            fds->emplace_back(fd);
        }
    }
    return true;
}

inline constexpr int kSealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

inline UniqueFd plain_memfd(size_t bytes, int seals) {
    UniqueFd fd(::memfd_create("stranger", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    must(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
    must(::fcntl(fd.get(), F_ADD_SEALS, seals) == 0);
    return fd;
}

struct Stranger {
    struct Region {  // that the victim announced
        Message message;
        UniqueFd fd;
    };

    QueueShape shape;
    Pages inbound, keys, outbound;  // of outbound: what the victim lets its peer write
    UniqueFd inbound_fd, keys_fd, socket;
    QueueShape their_shape;
    std::vector<Region> regions;

    explicit Stranger(uint32_t depth = 16) {
        shape.ring_depth = shape.receive_depth = depth;
        must(Pages::create(shape.bytes(), true, &inbound, &inbound_fd) == 0);
        // Its own mapping stays writable; the victim's is read-only.
        must(Pages::create(sizeof(KeyTable), false, &keys, &keys_fd) == 0);
    }

    [[nodiscard]] Message greeting(MessageType type) const {
        Message message;
        message.type = type;
        message.shape = shape;
        return message;
    }
    [[nodiscard]] Message hello() const { return greeting(MessageType::kHello); }

    [[nodiscard]] bool send(const Message& message, const std::vector<int>& fds = {}) const {
        return send_raw(socket.get(), &message, sizeof message, fds);
    }

    [[nodiscard]] bool send_hello(const std::string& path) {
        socket = connect_raw(path);
        return send(hello(), {inbound_fd.get(), keys_fd.get()});
    }

    // The victim's hello or welcome, which brings its queue. False: nothing such is there.
    [[nodiscard]] bool take_greeting(MessageType type, Message* message) {
        std::vector<UniqueFd> fds;
        if (!receive_raw(socket.get(), message, &fds, MSG_DONTWAIT)) return false;
        if (message->type != type || fds.size() != 2) return false;
        their_shape = message->shape;
        return Pages::import(fds[0].get(), their_shape.bytes(), true, &outbound) == 0;
    }

    // Reads the socket empty and keeps the regions that the victim has announced.
    void take_regions() {
        Message message;
        std::vector<UniqueFd> fds;
        while (receive_raw(socket.get(), &message, &fds, MSG_DONTWAIT)) {
            if (message.type == MessageType::kRegion && fds.size() == 1) {
                regions.push_back({message, std::move(fds[0])});
            }
            fds.clear();
        }
    }

    // Makes `fd` a region of ours under `rkey`, for whoever asks for `access`.
    [[nodiscard]] bool announce(uint32_t rkey, uint32_t access, uint64_t address, uint64_t length,
                                int fd) const {
        Message message;
        message.type = MessageType::kRegion;
        message.rkey = rkey;
        message.access = access;
        message.address = address;
        message.length = length;
        set_key(rkey, rkey);
        return send(message, {fd});
    }
    void set_key(uint32_t index, uint32_t value) const {
        auto* table = reinterpret_cast<KeyTable*>(keys.data());
        table->keys[index & kRegionIndexMask].store(value);
    }

    [[nodiscard]] QueueControl* control() const {  // of the queue that the victim sends into
        return reinterpret_cast<QueueControl*>(inbound.data());
    }
    [[nodiscard]] std::atomic<uint32_t>* lengths() const {
        return reinterpret_cast<std::atomic<uint32_t>*>(inbound.data() + shape.lengths_offset());
    }

    [[nodiscard]] Descriptor& descriptor(uint64_t position) const {
        auto* ring = reinterpret_cast<Descriptor*>(outbound.data() + their_shape.ring_offset());
        return ring[position % their_shape.ring_depth];
    }

    // Descriptor number `position` of the victim's queue, as it would be taken there.
    void forge(uint64_t position, uint32_t tag, uint32_t length, uint32_t rkey, uint64_t address,
               uint32_t immediate = 0xabcdef01) const {
        Descriptor& forged = descriptor(position);
        forged.immediate = immediate;
        forged.byte_length = length;
        forged.rkey = rkey;
        forged.address = address;
        std::memset(forged.bytes, 0xcc, sizeof forged.bytes);
        forged.tag.store(lap_tag(position, their_shape.ring_depth) | tag);
    }
};

}  // namespace rfaas::fabric::shm
