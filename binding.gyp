{
  "includes": ["native/sources.gypi"],
  "variables": { "have_verbs%": "<!(node scripts/have-verbs.mjs)" },
  "target_defaults": {
    "include_dirs": ["native", "native/include"],
    "cflags!": ["-fno-omit-frame-pointer"],
    "cflags": ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
    "cflags_cc": ["-std=c++20", "-fno-exceptions"],
    "defines": ["_GNU_SOURCE"]
  },
  "targets": [
    {
      "target_name": "rfaas",
      "sources": ["<@(core_sources)", "<@(addon_sources)"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=9",
        "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "libraries": ["-ldl", "-lpthread"]
    },
    {
      "target_name": "rfaas-executor",
      "type": "executable",
      "sources": ["<@(core_sources)", "<@(executor_sources)"],
      "ldflags": ["-rdynamic"],
      "libraries": ["-ldl", "-lpthread"]
    },
    {
      "target_name": "rfaas-sandbox",
      "type": "executable",
      "sources": ["native/core/affinity.cc", "<@(sandbox_sources)"],
      "cflags": ["-fPIE"],
      "ldflags": ["-static-pie"]
    },
    {
      "target_name": "rfaas-floor",
      "type": "executable",
      "sources": ["<@(core_sources)", "<@(floor_sources)"],
      "libraries": ["-ldl", "-lpthread"]
    }
  ],
  "conditions": [
    ["have_verbs==1", {
      "targets": [
        {
          "target_name": "rfaas_verbs",
          "type": "shared_library",
          "product_prefix": "",
          "product_dir": "<(PRODUCT_DIR)",
          "sources": ["<@(verbs_sources)"],
          "libraries": ["-lrdmacm", "-libverbs", "-lpthread"]
        }
      ]
    }]
  ]
}
