{
  "variables": {
    "core_sources": [
      "native/core/affinity.cc",
      "native/fabric/registry.cc",
      "native/fabric/shm/shm_memory.cc",
      "native/fabric/shm/shm_handshake.cc",
      "native/fabric/shm/shm_provider.cc",
      "native/fabric/shm/shm_datapath.cc",
      "native/invocation/client_channel.cc",
      "native/invocation/worker_channel.cc"
    ],
    "verbs_sources": [
      "native/fabric/verbs/verbs_provider.cc",
      "native/fabric/verbs/verbs_connection.cc",
      "native/fabric/verbs/verbs_datapath.cc"
    ],
    "addon_sources": [
      "native/addon/module.cc"
    ],
    "executor_sources": [
      "native/executor/main.cc"
    ],
    "test_sources": []
  }
}
