{
  "variables": {
    "core_sources": [
      "native/core/affinity.cc",
      "native/fabric/registry.cc",
      "native/fabric/shm/shm_memory.cc",
      "native/fabric/shm/shm_handshake.cc",
      "native/fabric/shm/shm_provider.cc",
      "native/fabric/shm/shm_datapath.cc",
      "native/fabric/shm/shm_queue_pair.cc",
      "native/invocation/client_channel.cc",
      "native/invocation/watchdog.cc",
      "native/invocation/worker_channel.cc"
    ],
    "verbs_sources": [
      "native/fabric/verbs/verbs_provider.cc",
      "native/fabric/verbs/verbs_address.cc",
      "native/fabric/verbs/verbs_connection.cc",
      "native/fabric/verbs/verbs_queue_pair.cc",
      "native/fabric/verbs/verbs_datapath.cc"
    ],
    "addon_sources": [
      "native/addon/module.cc",
      "native/addon/util/error.cc",
      "native/addon/child_process.cc",
      "native/addon/device.cc",
      "native/addon/memory_region.cc",
      "native/addon/completion_queue.cc",
      "native/addon/queue_pair.cc",
      "native/addon/listener.cc",
      "native/addon/invoker.cc",
      "native/addon/record_runs.cc",
      "native/addon/worker.cc"
    ],
    "executor_sources": [
      "native/executor/main.cc",
      "native/executor/config.cc",
      "native/executor/events.cc",
      "native/executor/exports.cc",
      "native/executor/package.cc"
    ],
    "sandbox_sources": [
      "native/sandbox/main.cc",
      "native/sandbox/config.cc",
      "native/sandbox/descriptors.cc",
      "native/sandbox/landlock.cc",
      "native/sandbox/privileges.cc",
      "native/sandbox/root.cc",
      "native/sandbox/seccomp.cc"
    ],
    "floor_sources": [
      "native/bench/main.cc",
      "native/bench/options.cc",
      "native/bench/endpoint.cc",
      "native/bench/fabric_modes.cc",
      "native/bench/host_modes.cc",
      "native/bench/report.cc"
    ],
    "test_sources": [
      "native/test/fabric_test.cc",
      "native/test/fabric_batch_test.cc",
      "native/test/fabric_connection_test.cc",
      "native/test/shm_test.cc",
      "native/test/shm_hostile_test.cc",
      "native/test/call_stats_test.cc",
      "native/test/channel_test.cc",
      "native/test/channel_loss_test.cc",
      "native/test/channel_hostile_test.cc",
      "native/test/package_test.cc",
      "native/test/sandbox_test.cc",
      "native/test/watchdog_test.cc",
      "native/test/wire_test.cc"
    ],
    "verbs_test_sources": [
      "native/test/verbs_test.cc"
    ],
    "fuzz_sources": [
      "native/fuzz/shm_messages.cc",
      "native/fuzz/shm_queue.cc",
      "native/fuzz/worker_channel.cc",
      "native/fuzz/client_channel.cc",
      "native/fuzz/executor_config.cc",
      "native/fuzz/package_exports.cc",
      "native/fuzz/sandbox_config.cc"
    ],
    "verbs_fuzz_sources": [
      "native/fuzz/verbs_address.cc"
    ]
  }
}
