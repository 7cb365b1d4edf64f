// By the names that tables, files and the command line use.
import { bareRequests } from './bare-requests.js'
import { direct } from './direct.js'
import type { Driver } from './driver.js'
import { grpc } from './grpc.js'
import { fastify, functionsFramework } from './http.js'
import { piscina } from './piscina.js'
import {
  invoke,
  invokeSync,
  map,
  mapRecords,
  nodeAwaited,
  nodeMap,
  nodeSync,
  warm,
} from './rfaas.js'

export const drivers = {
  invokeSync,
  invoke,
  map,
  mapRecords,
  warm,
  node: nodeSync,
  nodeAwaited,
  nodeMap,
  bareRequests,
  direct,
  piscina,
  grpc,
  fastify,
  functionsFramework,
} satisfies Record<string, Driver>

export type DriverName = keyof typeof drivers
