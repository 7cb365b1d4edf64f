// The public API of rfaas. The fabric has an entry of its own: rfaas/fabric.
export { Client, type ClientOptions, type LeaseOptions, type Usage } from './client/client.js'
export type { DeployOptions } from './client/deploy-options.js'
export { Lease, type LeaseDeployment, type LeaseEvents } from './client/lease.js'
export { Functions } from './client/functions.js'
export type {
  CallOptions,
  InvokeOptions,
  MapOptions,
  RecordOptions,
} from './client/call-options.js'
export { RfaasError, type ErrorCode, type ErrorDetails } from './errors.js'
export type { HarvestInfo, JobUsage, JobUsageReport } from './control/report-schemas.js'
export type { LeaseInfo, LeasePart, LeaseState, NodeInfo } from './control/schemas.js'
