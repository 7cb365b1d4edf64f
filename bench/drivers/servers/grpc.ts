// Serves the functions with @grpc/grpc-js: unary calls of bytes. Ends when its parent does.
import { Server, ServerCredentials, type handleUnaryCall } from '@grpc/grpc-js'

import { methodOf, unlimited } from '../grpc-method.js'
import { loadFunctions, serveUntilDisconnect } from './server.js'

const server = new Server(unlimited)
for (const [name, call] of Object.entries(await loadFunctions())) {
  const handle: handleUnaryCall<Buffer, Buffer> = ({ request }, done) =>
    done(null, Buffer.from(call(request)))
  server.addService({ [name]: methodOf(name) }, { [name]: handle })
}
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error
  serveUntilDisconnect(port, () => server.forceShutdown())
})
