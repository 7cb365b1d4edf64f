// A wire between two RDMA devices of one machine that has nothing else: that of `npm run test:roce`, whose
// two interfaces are on one hub. By themselves packets for an own address would never leave the kernel.
import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'

interface End {
  device: string
  netdev: string
  address: string
}

export const near: End = { device: 'rxe0', netdev: 'eth0', address: '10.0.0.1' }
export const far: End = { device: 'rxe1', netdev: 'eth1', address: '10.0.0.2' }
const ends = [
  [near, far],
  [far, near],
] as const

// Nobody's: frames to it reach no interface, and nobody is told, as when a switch fails.
const nowhere = '02:00:00:00:00:fe'
const viaWire = '100'

/** Why this host has none; undefined if it has. */
export const lackOfWire =
  process.env['RFAAS_REQUIRE'] === 'verbs' && existsSync(`/sys/class/net/${far.netdev}`)
    ? undefined
    : 'needs the machine of npm run test:roce'

export class Wire {
  /** It stays as long as the machine does. */
  static lay(): Wire {
    if (existsSync(`/sys/class/infiniband/${far.device}`)) return new Wire()
    ip('link', 'set', far.netdev, 'up')
    ip('addr', 'add', `${far.address}/24`, 'dev', far.netdev)
    for (const { netdev } of [near, far]) {
      set(netdev, 'accept_local', 1)
      set(netdev, 'rp_filter', 0)
    }
    set('all', 'rp_filter', 0)
    // What comes in is for us; what goes out leaves, to whichever of our addresses.
    for (const [here, there] of ends) {
      ip('route', 'add', there.address, 'dev', here.netdev, 'src', here.address, 'table', viaWire)
      ip('rule', 'add', 'pref', '10', 'iif', here.netdev, 'lookup', 'local')
      ip('rule', 'add', 'pref', '20', 'from', here.address, 'to', there.address, 'lookup', viaWire)
    }
    ip('rule', 'add', 'pref', '30', 'to', far.address, 'lookup', viaWire)
    ip('rule', 'add', 'pref', '40', 'lookup', 'local')
    ip('rule', 'del', 'pref', '0')
    execFileSync('rdma', ['link', 'add', far.device, 'type', 'rxe', 'netdev', far.netdev])
    return new Wire()
  }

  /** From now on neither end hears anything of the other. */
  cut(): void {
    for (const [here, there] of ends) {
      const lost = ['lladdr', nowhere, 'dev', here.netdev, 'nud', 'permanent']
      ip('neigh', 'replace', there.address, ...lost)
    }
  }

  heal(): void {
    for (const [here, there] of ends) ip('neigh', 'del', there.address, 'dev', here.netdev)
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args)
}

function set(netdev: string, name: string, value: number): void {
  writeFileSync(`/proc/sys/net/ipv4/conf/${netdev}/${name}`, String(value))
}
