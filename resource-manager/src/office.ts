// Who decides: the manager of this process, always or only in its turn.
import type { Standing } from '../../lib/control/schemas.js'
import type { RfaasError } from '../../lib/errors.js'
import type { Manager } from './manager.js'

/** What whoever decides does besides answering requests. */
export interface Duty {
  /** `url`: where this process is reached. */
  begin(manager: Manager, url: string): void
  end(): Promise<void>
}

export interface Office {
  /** When the server listens at `url`. */
  start(url: string, duty: Duty): Promise<void>

  /** Throws ERR_RFAAS_UNAVAILABLE while this process does not decide. */
  readonly manager: Manager
  /** The same, or undefined. */
  readonly current: Manager | undefined
  /** Resolves with the reason when this process can never decide again. */
  readonly failed: Promise<RfaasError>
  /** Throws what keeps requests from being served. */
  assertHealthy(): Standing | undefined
  /** Answers those who wait: their requests would hold up the end of the server. */
  refuseWaiting(): void
  /** When no request is left. */
  close(): Promise<void>
}
