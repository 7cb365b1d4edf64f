// Devices, memory, and what the registry asks of a provider.
#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "fabric/verbs/verbs.h"

namespace rfaas::fabric::verbs {

namespace {

// Reads and atomics that a peer may have outstanding. Each costs the device memory per queue pair.
constexpr int kMaxOutstandingReads = 16;
constexpr uint32_t kInlineProbeLimit = 16384;

constexpr char kNoDevice[] =
    "no RDMA device on this host. A network interface can carry Soft-RoCE: as root, modprobe "
    "rdma_rxe "
    "and then `rdma link add rxe0 type rxe netdev <interface>` (Debian: iproute2)";

std::string text_of(int error) {
    return std::strerror(error);
}

// The largest inline size that the device grants a queue pair; there is no attribute that says it.
// Doubling and halving: the number is a few hundred bytes on every device.
uint32_t probe_inline(ibv_context* context) {
    ibv_pd* pd = ibv_alloc_pd(context);
    if (pd == nullptr) return 0;
    ibv_cq* cq = ibv_create_cq(context, 1, nullptr, nullptr, 0);
    uint32_t granted = 0;
    const auto grants = [&](uint32_t bytes) {
        ibv_qp_init_attr attributes = {};
        attributes.send_cq = attributes.recv_cq = cq;
        attributes.qp_type = IBV_QPT_RC;
        attributes.cap = {.max_send_wr = 1,
                          .max_recv_wr = 1,
                          .max_send_sge = 2,
                          .max_recv_sge = 1,
                          .max_inline_data = bytes};
        ibv_qp* qp = ibv_create_qp(pd, &attributes);
        if (qp == nullptr) return false;
        granted = std::max(granted, attributes.cap.max_inline_data);
        ibv_destroy_qp(qp);
        return true;
    };
    if (cq != nullptr && grants(0)) {
        uint32_t high = 64;
        while (high < kInlineProbeLimit && grants(high)) high *= 2;
        uint32_t low = high / 2;  // granted, or 32 that nobody refuses
        while (high - low > 4) {
            const uint32_t middle = (low + high) / 2;
            (grants(middle) ? low : high) = middle;
        }
    }
    if (cq != nullptr) ibv_destroy_cq(cq);
    ibv_dealloc_pd(pd);
    return granted;
}

uint32_t max_inline(ibv_context* context) {
    static std::mutex mutex;
    static std::map<ibv_context*, uint32_t> known;  // contexts live as long as the process
    const std::lock_guard lock(mutex);
    const auto [entry, added] = known.try_emplace(context, 0);
    if (added) entry->second = probe_inline(context);
    return entry->second;
}

// The first active port, or 0 and what state the ports are in.
uint8_t active_port(ibv_context* context, const ibv_device_attr& device, ibv_port_attr* out,
                    std::string* reason) {
    const std::string name = ibv_get_device_name(context->device);
    for (uint8_t port = 1; port <= device.phys_port_cnt; ++port) {
        ibv_port_attr attributes = {};
        const int rc = ibv_query_port(context, port, &attributes);
        if (rc == 0 && attributes.state == IBV_PORT_ACTIVE) {
            *out = attributes;
            return port;
        }
        if (!reason->empty()) *reason += "; ";
        *reason += "port " + std::to_string(port) + " of " + name + " is " +
                   (rc == 0 ? ibv_port_state_str(attributes.state) : text_of(rc));
    }
    *reason += " (is its network interface up? see `rdma link`)";
    return 0;
}

int describe(ibv_context* context, DeviceInfo* info, uint8_t* port, std::string* reason) {
    ibv_device_attr device = {};
    const int rc = ibv_query_device(context, &device);
    if (rc != 0) {
        *reason = std::string(ibv_get_device_name(context->device)) + ": " + text_of(rc);
        return -rc;
    }
    ibv_port_attr attributes = {};
    *port = active_port(context, device, &attributes, reason);
    if (*port == 0) return -ENETDOWN;
    info->provider = "verbs";
    info->name = ibv_get_device_name(context->device);
    info->atomics = device.atomic_cap != IBV_ATOMIC_NONE;
    info->max_inline_bytes = max_inline(context);
    info->max_send_depth = info->max_receive_depth = static_cast<uint32_t>(device.max_qp_wr);
    info->max_completion_depth = static_cast<uint32_t>(device.max_cqe);
    info->max_message_bytes = attributes.max_msg_sz;
    info->max_request_private_data = kMaxRequestPrivate;
    info->max_reply_private_data = kMaxReplyPrivate;
    return 0;
}

bool kernel_has_devices() {
    DIR* folder = ::opendir("/sys/class/infiniband");
    if (folder == nullptr) return false;
    bool found = false;
    while (const dirent* entry = ::readdir(folder)) found |= entry->d_name[0] != '.';
    ::closedir(folder);
    return found;
}

// Node forks to start children. On kernels before 5.12 a fork makes the registered pages of the
// parent copy-on-write, and the device would go on with pages that the parent no longer sees.
// libibverbs keeps its own queues out of children then; VerbsRegion does it for the regions.
int make_forks_safe(std::string* reason) {
    static const int rc = ibv_fork_init();
    if (rc == 0 || ibv_is_fork_initialized() != IBV_FORK_DISABLED) return 0;
    *reason = "libibverbs cannot make forks safe: " + text_of(rc) +
              " (another library of this process has used it already; set RDMAV_FORK_SAFE=1)";
    return -rc;
}

// The contexts that librdmacm opens are the ones to use: its ids come with them, and protection
// domains of one context do not work with queue pairs of another.
int contexts(std::vector<ibv_context*>* out, std::string* reason) {
    const int rc = make_forks_safe(reason);
    if (rc != 0) return rc;
    int count = 0;
    ibv_device** list = ibv_get_device_list(&count);
    if (list != nullptr) ibv_free_device_list(list);
    if (list == nullptr && errno != ENOSYS) {
        *reason = "libibverbs: " + text_of(errno);
        return -errno;
    }
    if (count == 0) {
        *reason = kernel_has_devices()
                      ? "the RDMA devices of this host have no driver for libibverbs "
                        "(Debian: apt-get install ibverbs-providers)"
                      : kNoDevice;
        return -ENODEV;
    }
    if (::access("/dev/infiniband/rdma_cm", R_OK | W_OK) != 0) {
        const int error = errno;
        *reason = "/dev/infiniband/rdma_cm: " + text_of(error) +
                  (error == ENOENT ? " (as root, modprobe rdma_ucm)" : "");
        return -error;
    }
    ibv_context** found = rdma_get_devices(&count);
    if (found == nullptr || count == 0) {  // an empty list: none of them could be opened
        const int error = found == nullptr && errno != 0 ? errno : EACCES;
        if (found != nullptr) rdma_free_devices(found);
        *reason = "librdmacm cannot open the RDMA devices: " + text_of(error) +
                  " (may this user open /dev/infiniband/uverbs0?)";
        return -error;
    }
    for (int i = 0; i < count; ++i) {
        // iWARP has no write-with-immediate.
        if (found[i]->device->transport_type == IBV_TRANSPORT_IB) out->push_back(found[i]);
    }
    rdma_free_devices(found);
    if (out->empty()) *reason = "the RDMA devices of this host are iWARP, which rfaas cannot use";
    return out->empty() ? -ENODEV : 0;
}

class VerbsProvider final : public Provider {
  public:
    [[nodiscard]] std::string_view name() const override { return "verbs"; }

    int devices(std::vector<DeviceInfo>* out, std::string* reason) override {
        std::vector<ibv_context*> all;
        int rc = contexts(&all, reason);
        if (rc != 0) return rc;
        std::string problems;
        rc = -ENODEV;
        for (ibv_context* context : all) {
            DeviceInfo info;
            uint8_t port = 0;
            std::string problem;
            const int described = describe(context, &info, &port, &problem);
            if (described == 0) {
                out->push_back(std::move(info));
            } else {
                problems += (problems.empty() ? "" : "; ") + problem;
                rc = described;
            }
        }
        if (!out->empty()) return 0;
        *reason = problems;
        return rc;
    }

    int open(std::string_view name, std::unique_ptr<Device>* out, std::string* reason) override {
        std::vector<ibv_context*> all;
        int rc = contexts(&all, reason);
        if (rc != 0) return rc;
        std::string names;
        std::string problems;
        rc = -ENODEV;
        for (ibv_context* context : all) {
            const std::string found = ibv_get_device_name(context->device);
            names += (names.empty() ? "" : ", ") + found;
            if (!name.empty() && name != found) continue;
            DeviceInfo info;
            uint8_t port = 0;
            std::string problem;
            rc = describe(context, &info, &port, &problem);
            if (rc == 0) {
                auto device = std::make_unique<VerbsDevice>(context, port, std::move(info));
                rc = device->open();
                if (rc == 0) {
                    *out = std::move(device);
                    return 0;
                }
                problem = found + ": " + text_of(-rc);
            }
            problems += (problems.empty() ? "" : "; ") + problem;
        }
        *reason = problems.empty() ? "no verbs device is called \"" + std::string(name) +
                                         "\"; this host has " + names
                                   : problems;
        return rc;
    }
};

}  // namespace

VerbsRegion::~VerbsRegion() {
    if (mr_ == nullptr) {
        if (data_ != nullptr) ::munmap(data_, mapped_);
        return;
    }
    // Where deregistering fails the device may still write: then the pages must stay, for ever.
    if (ibv_dereg_mr(mr_) == 0) ::munmap(data_, mapped_);
}

int VerbsRegion::open(ibv_pd* pd, size_t bytes, uint32_t access) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    if (bytes == 0 || bytes > SIZE_MAX - page) return -EINVAL;
    mapped_ = (bytes + page - 1) / page * page;
    void* pages =
        ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return -errno;
    data_ = static_cast<uint8_t*>(pages);
    length_ = bytes;
    // Children do not get these pages: a fork needs no copy of them, which newer kernels would make
    // at once because they are pinned, and older ones later and wrongly (see make_forks_safe).
    if (::madvise(pages, mapped_, MADV_DONTFORK) != 0) return -errno;
    int flags = IBV_ACCESS_LOCAL_WRITE;
    if ((access & kRemoteWrite) != 0) flags |= IBV_ACCESS_REMOTE_WRITE;
    if ((access & kRemoteRead) != 0) flags |= IBV_ACCESS_REMOTE_READ;
    if ((access & kRemoteAtomic) != 0) flags |= IBV_ACCESS_REMOTE_ATOMIC;
    mr_ = ibv_reg_mr(pd, pages, bytes, flags);  // -ENOMEM: RLIMIT_MEMLOCK is too low, as a rule
    if (mr_ == nullptr) return errno != 0 ? -errno : -ENOMEM;
    rkey_ = mr_->rkey;
    return 0;
}

VerbsDevice::VerbsDevice(ibv_context* context, uint8_t port, DeviceInfo info)
    : context_(context), port_(port), info_(std::move(info)) {}

VerbsDevice::~VerbsDevice() {
    if (pd_ != nullptr) ibv_dealloc_pd(pd_);  // fails while a region had to stay, and stays too
}

int VerbsDevice::open() {
    ibv_device_attr device = {};
    const int rc = ibv_query_device(context_, &device);
    if (rc != 0) return -rc;
    max_responder_resources_ =
        static_cast<uint8_t>(std::clamp(device.max_qp_rd_atom, 0, kMaxOutstandingReads));
    max_initiator_depth_ =
        static_cast<uint8_t>(std::clamp(device.max_qp_init_rd_atom, 0, kMaxOutstandingReads));
    pd_ = ibv_alloc_pd(context_);
    if (pd_ == nullptr) return errno != 0 ? -errno : -ENOMEM;
    return 0;
}

int VerbsDevice::allocate(size_t bytes, uint32_t access, std::unique_ptr<MemoryRegion>* out) {
    if ((access & kRemoteAtomic) != 0 && !info_.atomics) return -EOPNOTSUPP;
    auto region = std::make_unique<VerbsRegion>();
    const int rc = region->open(pd_, bytes, access);
    if (rc == 0) *out = std::move(region);
    return rc;
}

int VerbsDevice::create_completion_queue(uint32_t depth, std::unique_ptr<CompletionQueue>* out) {
    if (depth == 0 || depth > info_.max_completion_depth) return -EINVAL;
    auto queue = std::make_unique<VerbsCompletionQueue>(this, depth);
    const int rc = queue->open(context_);
    if (rc == 0) *out = std::move(queue);
    return rc;
}

int VerbsDevice::make_queue_pair(const QueuePairOptions& options, std::shared_ptr<CmId> cm,
                                 std::unique_ptr<VerbsQueuePair>* out) {
    if (options.send_queue == nullptr || options.receive_queue == nullptr ||
        options.send_depth == 0 || options.send_depth > info_.max_send_depth ||
        options.receive_depth == 0 || options.receive_depth > info_.max_receive_depth ||
        options.rnr_retry > 7) {
        return -EINVAL;
    }
    auto queue_pair = std::make_unique<VerbsQueuePair>(this, options, std::move(cm));
    const int rc = queue_pair->open();
    if (rc == 0) *out = std::move(queue_pair);
    return rc;
}

int VerbsDevice::add(VerbsQueuePair* queue_pair, uint32_t* tag) {
    uint32_t index = static_cast<uint32_t>(slots_.size());
    if (!free_slots_.empty()) {
        index = free_slots_.back();
        free_slots_.pop_back();
    } else if (index > 0xffff) {
        return -ENOSPC;
    } else {
        slots_.push_back({nullptr, index});
    }
    slots_[index].queue_pair = queue_pair;
    *tag = slots_[index].tag;
    return 0;
}

void VerbsDevice::remove(uint32_t tag) {
    const uint32_t index = tag & 0xffff;
    slots_[index].queue_pair = nullptr;
    slots_[index].tag += 0x10000;
    free_slots_.push_back(index);
}

}  // namespace rfaas::fabric::verbs

extern "C" __attribute__((visibility("default"))) rfaas::fabric::Provider* rfaas_fabric_provider(
    uint32_t abi) {
    if (abi != rfaas::fabric::kProviderAbi) return nullptr;
    static rfaas::fabric::verbs::VerbsProvider provider;
    return &provider;
}
