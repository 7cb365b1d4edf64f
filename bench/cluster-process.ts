// Runs a resource manager and an executor manager until the parent is gone or has had enough.
import { startLocalCluster } from '../lib/local-cluster.js'

const [, , cores = '', pool = '0'] = process.argv
const cluster = await startLocalCluster({ cores, pool: Number(pool), logLevel: 'warn' })
process.on('disconnect', () => {
  cluster.close().then(
    () => process.exit(0),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    },
  )
})
process.send!(cluster.url)
