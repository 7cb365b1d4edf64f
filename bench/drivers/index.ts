// By the names that tables, files and the command line use.
import type { Driver } from './driver.js'
import { http } from './http.js'
import { invoke, invokeSync, nodeFunction, warm } from './rfaas.js'

export const drivers = {
  invokeSync,
  invoke,
  warm,
  node: nodeFunction,
  http,
} satisfies Record<string, Driver>

export type DriverName = keyof typeof drivers
