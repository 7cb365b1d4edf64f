// What a caller may say about a deployment, and what the nodes are asked for because of it.
import { checkArgument } from '../control/check.js'
import { ExecutorRequest } from '../control/schemas.js'
import { invalidArgument } from '../errors.js'
import { parseBytes, parseDuration } from '../units.js'
import type { FunctionsSettings } from './call-options.js'
import { readPackage, type FunctionPackage } from './package.js'

export interface DeployOptions {
  /** Longest input: bytes, or text such as '4MiB'. Default 1 MiB. */
  payload?: number | string
  /** Longest result. Default 1 MiB. */
  output?: number | string
  /** Calls that a worker can hold at once. Default 8. */
  slots?: number
  /** How long a worker spins after a call before it sleeps: ms, or text. Default 5 ms. */
  hotTimeout?: number | string
  /** How long an awaited call keeps the event loop polling before it sleeps. Default 1 ms. */
  hotWait?: number | string
  /** Default: shm when all nodes are the client's own host, else verbs. */
  provider?: 'shm' | 'verbs'
  /** The RDMA device of this side; default: the first usable one. */
  device?: string
}

export interface DeploymentPlan {
  code: FunctionPackage
  request: ExecutorRequest
  settings: FunctionsSettings
  device: string
}

/** `likely`: the provider when the caller names none. */
export async function planDeployment(
  path: string,
  options: DeployOptions,
  likely: 'shm' | 'verbs',
): Promise<DeploymentPlan> {
  const settings = {
    slots: options.slots ?? 8,
    payloadBytes: parseBytes(options.payload ?? '1MiB', 'payload'),
    outputBytes: parseBytes(options.output ?? '1MiB', 'output'),
    hotWaitMs: parseDuration(options.hotWait ?? 1, 'hotWait'),
  }
  const hotTimeoutMs = parseDuration(options.hotTimeout ?? 5, 'hotTimeout')
  const provider = options.provider ?? likely
  if (provider !== 'shm' && provider !== 'verbs') {
    throw invalidArgument('provider', provider, "'shm' or 'verbs'")
  }
  const code = await readPackage(path)
  const { slots, payloadBytes, outputBytes } = settings
  const request = checkArgument(
    ExecutorRequest,
    {
      package: code.sha256,
      runtime: code.runtime,
      provider,
      slots,
      payloadBytes,
      outputBytes,
      hotTimeoutMs,
      ...(provider === 'shm' && { clientUid: process.geteuid?.() }),
    },
    'deploy',
  )
  return { code, request, settings, device: options.device ?? '' }
}
