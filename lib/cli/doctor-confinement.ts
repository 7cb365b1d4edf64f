// What `rfaas doctor` says about confinement: each layer is really tried, as an executor manager does.
import { messageOf, type Finding } from './doctor-checks.js'

export async function checkConfinement(): Promise<Finding[]> {
  try {
    const { Confinement } = await import('../../executor-manager/src/confinement.js')
    const { parseUidRange } = await import('../../executor-manager/src/uids.js')
    const confinement = await Confinement.detect({ mode: 'auto', uidRange: parseUidRange() })
    await confinement.close()
    return confinement.layers.map(({ name, active, detail, change }) => ({
      name,
      verdict: active ? 'ok' : 'note',
      found: detail,
      ...(change !== undefined && { change }),
    }))
  } catch (error) {
    return [{ name: 'launcher', verdict: 'failed', found: messageOf(error) }]
  }
}
