// Pages, regions and their keys.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "fabric/shm/shm.h"

namespace rfaas::fabric::shm {

Pages& Pages::operator=(Pages&& other) noexcept {
    if (this != &other) {
        unmap();
        data_ = std::exchange(other.data_, nullptr);
        bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
}

void Pages::unmap() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
    data_ = nullptr;
    bytes_ = 0;
}

int Pages::create(size_t bytes, bool peer_writable, Pages* pages, UniqueFd* fd) {
    UniqueFd memory(::memfd_create("rfaas", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory.valid()) return -errno;
    if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return -errno;
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    if (data == MAP_FAILED) return -errno;
    pages->unmap();
    pages->data_ = static_cast<uint8_t*>(data);
    pages->bytes_ = bytes;
    // After our own mapping: FUTURE_WRITE keeps peers, not us, from writing.
    int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    if (!peer_writable) seals |= F_SEAL_FUTURE_WRITE;
    if (::fcntl(memory.get(), F_ADD_SEALS, seals | F_SEAL_SEAL) != 0) return -errno;
    *fd = std::move(memory);
    return 0;
}

int Pages::import(int fd, size_t bytes, bool writable, Pages* pages) {
    const int seals = ::fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return -EPERM;
    struct stat status = {};
    if (::fstat(fd, &status) != 0) return -errno;
    if (status.st_size < 0 || static_cast<size_t>(status.st_size) < bytes) return -EINVAL;
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void* data = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return -errno;
    pages->unmap();
    pages->data_ = static_cast<uint8_t*>(data);
    pages->bytes_ = bytes;
    return 0;
}

ShmRegion::ShmRegion(ShmDevice* device, uint32_t access, Pages pages, UniqueFd fd, size_t length)
    : device_(device), access_(access), pages_(std::move(pages)), fd_(std::move(fd)) {
    data_ = pages_.data();
    length_ = length;
}

ShmRegion::~ShmRegion() {
    device_->remove(this);
}

int ShmDevice::allocate(size_t bytes, uint32_t access, std::unique_ptr<MemoryRegion>* out) {
    if (bytes == 0 || bytes > info_.max_message_bytes * 16) return -EINVAL;
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const bool peer_writable = (access & (kRemoteWrite | kRemoteAtomic)) != 0;
    Pages pages;
    UniqueFd fd;
    int rc = Pages::create((bytes + page - 1) / page * page, peer_writable, &pages, &fd);
    if (rc < 0) return rc;

    uint32_t tried = 0;
    while (regions_[next_index_] != nullptr) {
        next_index_ = (next_index_ + 1) & kRegionIndexMask;
        if (++tried == kMaxRegions) return -ENOSPC;
    }
    auto region = std::make_unique<ShmRegion>(this, access, std::move(pages), std::move(fd), bytes);
    // The upper bits are random and never zero: a stale or guessed key does not match.
    uint32_t random = 0;
    while (random == 0) {
        if (::getrandom(&random, sizeof random, 0) != sizeof random) return -EIO;
        random &= ~kRegionIndexMask;
    }
    region->rkey_ = random | next_index_;
    regions_[next_index_] = region.get();
    next_index_ = (next_index_ + 1) & kRegionIndexMask;
    if (access != 0) {
        auto* table = reinterpret_cast<KeyTable*>(keys_.data());
        const uint32_t key = region->key();
        table->keys[key & kRegionIndexMask].store(key, std::memory_order_release);
        for (ShmQueuePair* queue_pair : queue_pairs_) {
            rc = queue_pair->announce(*region);
            if (rc < 0) return rc;
        }
    }
    *out = std::move(region);
    return 0;
}

// The key dies at once, for every peer; the peers' mappings follow when they read their sockets.
void ShmDevice::remove(ShmRegion* region) {
    const uint32_t key = region->key();
    if (regions_[key & kRegionIndexMask] != region) return;  // allocate() failed half-way
    regions_[key & kRegionIndexMask] = nullptr;
    if (region->access() == 0) return;
    auto* table = reinterpret_cast<KeyTable*>(keys_.data());
    table->keys[key & kRegionIndexMask].store(0, std::memory_order_release);
    for (ShmQueuePair* queue_pair : queue_pairs_) queue_pair->withdraw(key);
}

void ShmDevice::remove(ShmQueuePair* queue_pair) {
    std::erase(queue_pairs_, queue_pair);
}

}  // namespace rfaas::fabric::shm
