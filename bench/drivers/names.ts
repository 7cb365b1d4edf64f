// What the names in results stand for: how they are called in reports, and whose they are.
export type Kind = 'rfaas' | 'peer' | 'floor'

interface Name {
  label: string
  kind: Kind
}

const names: Readonly<Record<string, Name>> = {
  floor: { label: 'floor (C++)', kind: 'floor' },
  bareFloor: { label: 'floor, bytes not looked at', kind: 'floor' },
  eventfd: { label: 'eventfd ping-pong', kind: 'floor' },
  memcpy: { label: 'memcpy', kind: 'floor' },
  bareRequests: { label: 'two bare requests', kind: 'floor' },
  ib_write_lat: { label: 'ib_write_lat', kind: 'floor' },
  ib_write_bw: { label: 'ib_write_bw', kind: 'floor' },
  invokeSync: { label: 'rfaas invokeSync', kind: 'rfaas' },
  invoke: { label: 'rfaas await invoke', kind: 'rfaas' },
  map: { label: 'rfaas map', kind: 'rfaas' },
  mapRecords: { label: 'rfaas mapRecords', kind: 'rfaas' },
  warm: { label: 'rfaas warm', kind: 'rfaas' },
  node: { label: 'rfaas node', kind: 'rfaas' },
  nodeAwaited: { label: 'rfaas node, awaited', kind: 'rfaas' },
  nodeMap: { label: 'rfaas node, map', kind: 'rfaas' },
  native: { label: 'rfaas native', kind: 'rfaas' },
  resourceManager: { label: 'resource manager', kind: 'rfaas' },
  direct: { label: 'same thread', kind: 'peer' },
  piscina: { label: 'piscina', kind: 'peer' },
  grpc: { label: 'grpc-js', kind: 'peer' },
  fastify: { label: 'Fastify', kind: 'peer' },
  functionsFramework: { label: 'functions-framework', kind: 'peer' },
}

export function labelOf(driver: string): string {
  return names[driver]?.label ?? driver
}

export function kindOf(driver: string): Kind {
  return names[driver]?.kind ?? 'peer'
}
