// The methods of the gRPC service, for client and server: bytes in, bytes out, without a .proto.
import type { MethodDefinition } from '@grpc/grpc-js'

const asItIs = (bytes: Buffer): Buffer => bytes

export function methodOf(name: string): MethodDefinition<Buffer, Buffer> {
  return {
    path: `/rfaas.bench.Functions/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: asItIs,
    requestDeserialize: asItIs,
    responseSerialize: asItIs,
    responseDeserialize: asItIs,
  }
}

/** The default refuses messages above 4 MiB. */
export const unlimited = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
}
