// `rfaas doctor --url`: do the resource managers answer, who of them leads, and how is their etcd?
import { request } from '../control/http.js'
import { parseUrls } from '../control/manager-urls.js'
import { Health } from '../control/schemas.js'
import { caOfEnvironment, Transport } from '../control/transport.js'
import { RfaasError } from '../errors.js'
import type { Finding } from './doctor-checks.js'

const timeoutMs = 3000

export async function checkManagers(urls: string, ca = caOfEnvironment()): Promise<Finding[]> {
  const transport = new Transport({ ca })
  const all = parseUrls('url', urls)
  const findings = await Promise.all(all.map((url) => checkManager(url, transport)))
  // One that is missing is not noticed as long as there is another one.
  const works = findings.some(({ verdict }) => verdict === 'ok')
  return works
    ? findings.map((finding) => ({
        ...finding,
        verdict: finding.verdict === 'failed' ? 'note' : finding.verdict,
      }))
    : findings
}

async function checkManager(url: string, transport: Transport): Promise<Finding> {
  try {
    const health = await request(`${url}/healthz`, { schema: Health, transport, timeoutMs })
    const { role, leader = '', etcd, warnings } = health
    const found = [
      role === 'follower' ? `follows ${leader}` : role === 'leader' ? 'leads' : 'answers',
      ...(etcd === undefined ? [] : [`${etcd.well} of ${etcd.members} members of etcd are well`]),
      ...warnings,
    ].join('\n')
    const ill = etcd !== undefined && etcd.well < etcd.members
    if (!ill) return { name: url, verdict: 'ok', found }
    return { name: url, verdict: 'note', found, change: 'start the members of etcd that are away' }
  } catch (error) {
    if (!(error instanceof RfaasError)) throw error
    return { name: url, verdict: 'failed', found: error.message }
  }
}
