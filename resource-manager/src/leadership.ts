// One of several resource managers on one store in etcd: follows the leader, and becomes it when there is
// none. What a leader has in memory is worth nothing after its term; it drops it and follows.
import { setTimeout as sleep } from 'node:timers/promises'
import { SteadyClock, type Clock } from '../../lib/control/clock.js'
import type { Logger } from '../../lib/control/log.js'
import type { Standing } from '../../lib/control/schemas.js'
import { RfaasError } from '../../lib/errors.js'
import { openEtcdStore } from '../stores/etcd.js'
import type { Etcd, MemberStatus } from '../stores/etcd-client.js'
import { Election, type Leader, type OwnTerm } from '../stores/etcd-election.js'
import type { Snapshot, Store } from '../stores/store.js'
import type { Manager } from './manager.js'
import type { Duty, Office } from './office.js'
import { clockAfterLeader, type Sign } from './succession.js'

const lookMs = 250
// After a failure, so that it is not told a hundred times.
const pauseMs = 1000
const statusMs = 5000

export interface LeadershipOptions {
  etcd: Etcd
  prefix: string
  /** Silence after which a leader is deposed. */
  ttlMs: number
  logger: Logger
  /** Begins to decide, from what was stored. */
  startManager(store: Store, snapshot: Snapshot, clock: Clock): Manager
  /** The leader is another one from now on, or unknown: requests to the one before are given up. */
  onChange(): void
}

export class Leadership implements Office {
  readonly #options: LeadershipOptions
  readonly #election: Election
  /** For terms and the age of what was heard; leases have one of their own. */
  readonly #clock = new SteadyClock()
  readonly #stop = new AbortController()
  readonly #stopped = new Promise<void>((resolve) => {
    this.#stop.signal.addEventListener('abort', () => resolve(), { once: true })
  })
  readonly failed = new Promise<never>(() => undefined)
  #url = ''
  #duty: Duty | undefined
  #term: OwnTerm | undefined
  #manager: Manager | undefined
  #leader: Leader | undefined
  #sign: Sign | undefined
  #lookedAtMs: number | undefined
  #problem: Error | undefined
  #etcdStatus: MemberStatus[] = []
  #terms = 0
  #running: Promise<void> | undefined
  #statusTimer: NodeJS.Timeout | undefined

  constructor(options: LeadershipOptions) {
    const { etcd, prefix, ttlMs } = options
    this.#options = options
    this.#election = new Election({ etcd, prefix, ttlMs, clock: this.#clock })
  }

  /** `url` is where the others reach this one. Resolves when it leads or follows. */
  async start(url: string, duty: Duty): Promise<void> {
    this.#url = url
    this.#duty = duty
    await this.#readStatus()
    this.#statusTimer = setInterval(() => void this.#readStatus(), statusMs).unref()
    await new Promise<void>((resolve) => {
      this.#running = this.#run(resolve)
    })
  }

  get current(): Manager | undefined {
    return this.#term?.holds === true ? this.#manager : undefined
  }

  get manager(): Manager {
    const { current } = this
    if (current !== undefined) return current
    throw this.#unavailable()
  }

  /** Of another process; undefined if this one leads or nobody does. */
  get otherLeader(): string | undefined {
    // Our own key, of a term that we gave up, may stand until it expires.
    return this.#leader?.url === this.#url ? undefined : this.#leader?.url
  }

  /** How often this process was elected. */
  get terms(): number {
    return this.#terms
  }

  /** A moment ago. */
  get etcdStatus(): readonly MemberStatus[] {
    return this.#etcdStatus
  }

  assertHealthy(): Standing {
    const { current, otherLeader } = this
    const well = this.#etcdStatus.filter(({ problem }) => problem === undefined).length
    const etcd = { members: this.#etcdStatus.length, well }
    if (current !== undefined) return { role: 'leader', leader: this.#url, etcd }
    if (otherLeader === undefined) throw this.#unavailable()
    return { role: 'follower', leader: otherLeader, etcd }
  }

  refuseWaiting(): void {
    this.#manager?.refuseWaiting(notLeading())
  }

  async close(): Promise<void> {
    this.#stop.abort()
    clearInterval(this.#statusTimer)
    await this.#running
  }

  /** `settled` is called once, when it is clear for the first time who leads. */
  async #run(settled: () => void): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      let waitMs = lookMs
      try {
        await this.#look()
        if (this.#leader === undefined) {
          const term = await this.#election.stand(this.#url)
          if (term !== undefined) waitMs = await this.#serve(term, settled)
        } else settled()
        if (waitMs === lookMs) this.#problem = undefined
      } catch (error) {
        this.#tellProblem(error as Error)
        waitMs = pauseMs
      }
      settled()
      await sleep(waitMs, undefined, { signal }).catch(() => undefined)
    }
  }

  async #look(): Promise<void> {
    const askedAtMs = this.#clock.now()
    // If etcd does not answer, the leader that is known may lead all the same: it knows.
    const leader = await this.#election.leader()
    this.#follow(leader)
    if (leader?.nowMs !== undefined && leader.modRevision !== this.#sign?.revision) {
      this.#sign = {
        revision: leader.modRevision,
        nowMs: leader.nowMs,
        notBeforeMs: this.#lookedAtMs,
        notAfterMs: this.#clock.now(),
      }
    }
    this.#lookedAtMs = askedAtMs
  }

  #follow(leader: Leader | undefined): void {
    const before = this.#leader
    this.#leader = leader
    if (leader?.createRevision === before?.createRevision) return
    if (leader !== undefined) this.#options.logger.info({ leader: leader.url }, 'follows')
    this.#options.onChange()
  }

  /** Leads until the term is over; how long to wait before the next look. */
  async #serve(term: OwnTerm, settled: () => void): Promise<number> {
    const { etcd, prefix, ttlMs, startManager, logger, onChange } = this.#options
    const store = openEtcdStore(etcd, prefix, term)
    let reason = 'this process ends'
    let failed = false
    try {
      const snapshot = await store.load()
      const clock = clockAfterLeader(snapshot, this.#sign, this.#clock, ttlMs)
      await store.commit({ clock: clock.anchor })
      term.tells(() => clock.now())
      this.#term = term
      this.#manager = startManager(store, snapshot, clock)
      this.#duty?.begin(this.#manager, this.#url)
      this.#terms += 1
      this.#problem = undefined
      const { leases, nodes } = snapshot
      logger.info({ leases: leases.length, nodes: nodes.length }, 'leads')
      settled()
      await Promise.race([
        this.#stopped,
        term.over.then((why) => (reason = why)),
        store.failed.then(({ message }) => {
          reason = message
          failed = true
        }),
      ])
    } finally {
      this.#manager?.stop(notLeading())
      this.#manager = undefined
      this.#term = undefined
      await this.#duty?.end()
      if (!this.#stop.signal.aborted) onChange()
      // What was decided in time is stored; the rest is refused.
      if (this.#stop.signal.aborted) await store.close()
      await term.resign()
    }
    if (!this.#stop.signal.aborted) logger.warn({ reason }, 'leads no more')
    return failed ? pauseMs : lookMs
  }

  async #readStatus(): Promise<void> {
    this.#etcdStatus = await this.#options.etcd.status()
  }

  #tellProblem(error: Error): void {
    if (error.message !== this.#problem?.message) {
      this.#options.logger.error({ err: error }, 'cannot tell who leads, or lead')
    }
    this.#problem = error
  }

  #unavailable(): RfaasError {
    const why = this.#problem === undefined ? '' : ` (${this.#problem.message})`
    return new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `no resource manager leads at the moment${why}: try again in a few seconds`,
    )
  }
}

function notLeading(): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    'this resource manager does not lead any more: try again, another one does',
  )
}
