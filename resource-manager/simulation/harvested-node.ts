// What a harvested node does, towards the real manager: it registers, hears what becomes of the leases on
// it and confirms their ends, and leaves with notice.
import { openPrincipal } from '../../lib/control/principal.js'
import type { EndEvent, RevokingEvent } from '../../lib/control/schemas.js'
import type { Manager } from '../src/manager.js'
import type { Work } from './work.js'

export interface NodeDescription {
  name: string
  cores: readonly number[]
  memoryBytes: number
  switch: string
}

/** Whoever holds a part of a lease here. */
export interface Holder {
  revoking(noticeMs: number): void
}

export class HarvestedNode {
  readonly description: NodeDescription
  readonly #manager: Manager
  readonly #work: Work
  readonly #held = new Map<string, Holder>()
  #registrations = 0
  #left: (() => void) | undefined

  constructor(description: NodeDescription, manager: Manager, work: Work) {
    this.description = description
    this.#manager = manager
    this.#work = work
  }

  /** `idleUntilMs`: when the batch system is known to want it. */
  join(idleUntilMs: number | undefined): void {
    const { name, cores, memoryBytes } = this.description
    this.#registrations += 1
    const registered = this.#manager.register(openPrincipal, {
      ...{ name, cores: [...cores], memoryBytes, switch: this.description.switch },
      ...{ url: 'http://127.0.0.1', providers: [], leases: [], hostId: name },
      ...(idleUntilMs !== undefined && { idleUntilMs }),
      sequence: this.#registrations,
    })
    this.#work.track(registered)
    this.#manager.attach(openPrincipal, name, () => ({
      send: (event, data) => {
        this.#hear(event, data as EndEvent | RevokingEvent)
        return true
      },
      end: () => undefined,
      closed: false,
      onClose: () => undefined,
    }))
  }

  /** A part of a lease that was granted here. */
  hold(part: string, holder: Holder): void {
    this.#held.set(part, holder)
  }

  /** Its leases have the notice to finish their calls; `left` is called when the last one is over. */
  leave(noticeMs: number, left: () => void): void {
    this.#left = left
    const { name } = this.description
    this.#work.track(this.#manager.maintenance.drain(openPrincipal, name, noticeMs))
    this.#leaveIfEmpty()
  }

  #hear(event: string, data: EndEvent | RevokingEvent): void {
    const holder = this.#held.get(data.lease)
    if (holder === undefined) return
    if (event === 'revoking') return holder.revoking((data as RevokingEvent).noticeMs)
    this.#held.delete(data.lease)
    const { name } = this.description
    // What it used nobody asks for here: the manager bills the time of the lease.
    const measured = { heldMs: 0, cpuMs: 0 }
    this.#work.track(this.#manager.closed(openPrincipal, name, data.lease, measured))
    this.#leaveIfEmpty()
  }

  #leaveIfEmpty(): void {
    if (this.#held.size > 0 || this.#left === undefined) return
    const left = this.#left
    this.#left = undefined
    this.#work.track(this.#manager.maintenance.remove(openPrincipal, this.description.name, true))
    left()
  }
}
